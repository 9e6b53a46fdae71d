"""An odd record spoils a cell and is named; everything else is made as if it were not there."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from paper_tables.__main__ import main
from paper_tables.analysis.cells import compare
from paper_tables.analysis.formats import OUT_OF_RANGE, quantity, share
from paper_tables.analysis.intervals import mean_interval, paired_ratio
from paper_tables.analysis.odd_records import legible, oddity, without_odd
from paper_tables.item import Plot, Table, records_of
from paper_tables.registry import items
from paper_tables.report.render import rendered, rendering, section_of, terminal_table
from results import Metric, RecordError, RunRecord, Store, config_hash
from results.plan_history import to_columns
from tests.results.factory import fill, make_record

COUNT = 24
LARGE = 200


@pytest.fixture(scope="module")
def good() -> list[RunRecord]:
    """Every experiment of a tier."""

    class Kept(Store):
        def append(self, record: RunRecord) -> Path:
            return Path()

    return fill(Kept(), seeds=2)


def with_metric(record: RunRecord, value: float) -> RunRecord:
    made = copy.copy(record)
    metrics = {name: Metric(value, one.unit, one.higher_is_better, one.n) for name, one in record.metrics.items()}
    object.__setattr__(made, "metrics", metrics)
    return made


def mutated(record: RunRecord, chance: random.Random) -> RunRecord:
    """A record with one thing that no run of this suite writes, whole by the rules of records."""
    raw: dict[str, Any] = json.loads(record.to_json())
    odd = chance.choice([1e308, -1e308, 0.0, -1.0, 5e-324, 1e20])
    kind = chance.choice(["metric", "all metrics", "no metric", "no metrics", "config", "text", "payload", "history"])
    names = sorted(raw["metrics"])
    if kind == "metric" and names:
        raw["metrics"][chance.choice(names)]["value"] = odd
    elif kind == "all metrics":
        for metric in raw["metrics"].values():
            metric["value"] = odd
    elif kind == "no metric" and names:
        del raw["metrics"][chance.choice(names)]
    elif kind == "no metrics":
        raw["metrics"] = {}
    elif kind == "config":
        free = [key for key in sorted(raw["config"]) if key not in ("experiment", "tier", "method")]
        raw["config"][chance.choice(free)] = chance.choice(
            [None, "odd", [1], {"name": ["x"]}, -1, 1e308, True, "\udc80"]
        )
    elif kind == "text":
        raw["command"] = raw["device"]["name"] = raw["data_fingerprint"] = "\udc80\x1b[31m|$x$\\input{y}\n\n"
    elif kind == "payload" and raw["payload"]:
        raw["payload"][chance.choice(sorted(raw["payload"]))] = chance.choice([None, "odd", [], {}, [None], odd])
    else:
        raw["plan_history"], raw["loss_curve"] = to_columns(()), [[0, odd]]
    raw["config_hash"] = config_hash(raw["config"])
    return RunRecord.from_json(json.dumps(raw))


def survive(good: Sequence[RunRecord], seed: int, everything: bool) -> None:
    """Every item that reads the experiment is made of the others and the odd one, which is named if it is left out.

    Without `everything` only the tables of the experiment itself are made: drawing takes its time.
    """
    chance = random.Random(seed)
    place = chance.randrange(len(good))
    odd = legible(mutated(good[place], chance))
    records = [*good[:place], odd, *good[place + 1 :]]
    for item in items():
        if isinstance(item, Plot) and item.each:
            item = item.of(odd.experiment)
        if item.experiments and odd.experiment not in item.experiments:
            continue
        if not everything and (isinstance(item, Plot) or not item.experiments):
            continue
        few = [record for record in records if not item.experiments or record.experiment in item.experiments]
        made, left_out = section_of(item, few)
        assert {record.id for record, _ in left_out} <= {odd.id}
        if left_out:
            assert made is None or any(odd.id in note for note in made.content.notes)
        if made is not None:
            assert all(made.files.values())
            assert isinstance(item, Plot) or "nan" not in made.files[".md"].decode().split()


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_record_of_a_few_spoils_nothing_but_itself(good: list[RunRecord], seed: int) -> None:
    survive(good, seed, everything=False)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(COUNT, COUNT + LARGE))
def test_a_record_of_many_spoils_nothing_but_itself(good: list[RunRecord], seed: int) -> None:
    survive(good, seed, everything=True)


@pytest.mark.parametrize("value", [1e308, -1e308, 1e101])
def test_a_cell_says_that_its_number_is_out_of_range(value: float, good: list[RunRecord]) -> None:
    own = [record for record in good if record.experiment == "coupled_vs_uncoupled"]
    place = next(n for n, record in enumerate(own) if record.method == "ecospa")
    odd = with_metric(own[place], value)
    assert oddity(odd) is not None and oddity(own[place]) is None
    (item,) = (item for item in items() if item.name == "coupled_vs_uncoupled")
    section, left_out = section_of(item, [*own[:place], odd, *own[place + 1 :]])
    assert section is not None and left_out == ()
    text = section.files[".md"].decode()
    assert OUT_OF_RANGE in next(line for line in text.splitlines() if "EcoSpa " in line)
    assert OUT_OF_RANGE not in next(line for line in text.splitlines() if "small dense" in line)


def test_numbers_that_are_none_are_said_to_be_none() -> None:
    assert quantity(mean_interval([1e308, 1e308])) == quantity(paired_ratio({0: 1.0}, {0: 0.0})) == OUT_OF_RANGE
    assert quantity(mean_interval([0.0, 0.0])) == "0" and share("half") == "half"  # type: ignore[arg-type]
    assert quantity(mean_interval([-1.0, -1.0])) == "-1.000"


def test_what_builds_of_nothing_else_is_left_out_and_a_fault_of_the_item_is_not() -> None:
    records = [make_record(number, {"perplexity": float(number)}, seed=number) for number in range(40)]

    def build(some: Sequence[RunRecord]) -> int:
        if any(record.seed in (3, 17, 39) for record in some):
            raise ArithmeticError("a bad\nseed")
        return len(some)

    made, left_out = without_odd(build, records)
    assert made == 37 and sorted(record.seed for record, _ in left_out) == [3, 17, 39]
    assert {reason for _, reason in left_out} == {"ArithmeticError: a bad seed"}

    def broken(some: Sequence[RunRecord]) -> int:
        raise KeyError("its own fault")

    with pytest.raises(KeyError, match="its own fault"):
        without_odd(broken, records)


def test_a_legible_record_stays_itself() -> None:
    record = make_record()
    assert legible(record) is record
    odd = make_record(device={"kind": "cpu", "name": "\udc80\x07"})
    assert legible(odd).device["name"] == r"\udc80\x07" and odd.device["name"] == "\udc80\x07"


def _later(text: str) -> str:
    return text.replace('"schema_version": 2', '"schema_version": 3')


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "", lambda text: text[: len(text) // 2], _later, lambda text: "[1, 2]", lambda text: "null",
        lambda text: '{"name": "foreign"}', lambda text: text.replace('"seconds": 12.5', '"seconds": NaN'),
        lambda text: text.replace('"seconds": 12.5', '"seconds": 1e999'), lambda text: "[" * 100_000,
        lambda text: text.replace('"metrics": {', '"metrics": {"perplexity": "many", '),
        lambda text: text.replace('"seed": 3', '"seed": "3"'), lambda text: "\x00\xff",
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_the_rest_is_made(
    damage: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "records")
    for number in range(4):
        path = store.append(make_record(number, {"perplexity": 9.0 + number}, seed=number))
    path.write_bytes(damage(path.read_text()).encode("latin-1"))
    with pytest.raises(RecordError):
        store.records()
    records, damaged = store.readable(tier="smoke")
    assert len(records) == 3 and len(damaged) == 1 and path.name in damaged[0]
    out = tmp_path / "out"
    assert main(["--records", str(store.folder), "--out", str(out), "--html"]) == 1
    assert path.name in capsys.readouterr().err
    assert path.name in (out / "report.html").read_text() and (out / "coupled_vs_uncoupled.md").exists()
    (out / "report.html").unlink()


def test_an_odd_record_is_named_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "records")
    odd = make_record(9, {"perplexity": 1e308}, seed=9)
    for number in range(3):
        store.append(make_record(number, {"perplexity": 9.0 + number}, seed=number))
    without = rendered("smoke", store)
    store.append(odd)
    made = rendering("smoke", store)
    assert made.files.keys() >= without.keys()
    assert any(odd.id in line and "out of range" in line for line in made.odd)
    assert odd.id in made.files["report.html"].decode()
    assert terminal_table("smoke", store)


def test_an_empty_table_needs_no_record() -> None:
    for item in items():
        if isinstance(item, Table):
            assert isinstance(item.build(records_of(item, [])), pd.DataFrame)
    assert compare([]).cells == ()
