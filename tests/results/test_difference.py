"""Two records that disagree: every reason is named, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from results.difference import ABSENT, causes, effects
from results.store import Store
from tests.results.factory import make_record


def named(found: tuple) -> dict[str, tuple]:
    return {f"{one.part}.{one.field}": (one.first, one.second) for one in found}


def test_nothing_differs_between_a_record_and_its_twin() -> None:
    one, two = make_record(1, {"perplexity": 3.0}), make_record(2, {"perplexity": 3.0})
    assert causes(one, two) == () and effects(one, two) == ()


def test_every_reason_is_named() -> None:
    protocol = {"tokenizer": "bpe-2048", "sequence_length": 128, "stride": 63, "split": "validation", "bos": True}
    one = make_record(1, {"perplexity": 3.0, "latency": 1.0}, payload={"calibration": {"seed": 0}})
    two = make_record(
        2, {"perplexity": 4.0}, protocol=protocol, seed=5, data_fingerprint="other", commit="f" * 40, dirty=True,
        versions={"python": "3.11.7", "torch": "2.15.0"}, device={"kind": "cuda", "name": "H100"}, target=0.3,
        payload={"calibration": {"seed": 5}},
    )  # fmt: skip
    found = named(causes(one, two))
    assert found["protocol.sequence_length"] == (64, 128)
    assert found["versions.torch"] == ("2.11.0", "2.15.0")
    assert found["run.target"] == (0.5, 0.3) and found["run.seed"] == (0, 5)
    assert found["data.fingerprint"][1] == "other" and found["data.calibration seed"] == (0, 5)
    assert found["device.cores"] == (2, ABSENT)
    assert set(found) == {
        "protocol.sequence_length", "run.seed", "run.target", "data.fingerprint", "data.calibration seed",
        "code.commit", "code.uncommitted changes", "versions.torch", "device.kind", "device.name",
        "device.cores", "device.threads",
    }  # fmt: skip
    assert named(effects(one, two)) == {"results.perplexity": (3.0, 4.0), "results.latency": (1.0, ABSENT)}


def test_settings_that_only_one_record_has_are_told() -> None:
    one, two = make_record(1), make_record(2, training={})
    assert named(causes(one, two))["training.steps"] == (200, ABSENT)


def test_the_command_takes_ids_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    paths = [store.append(make_record(n, {"perplexity": 3.0 + n}, seed=n)) for n in range(2)]
    names = [make_record(n).id for n in range(2)]
    assert main(["why-different", *names, "--records", str(tmp_path)]) == 0
    by_id = capsys.readouterr().out
    assert main(["why-different", *map(str, paths)]) == 0
    assert capsys.readouterr().out == by_id
    assert "seed" in by_id and "perplexity" in by_id and "protocol" not in by_id
    assert main(["why-different", names[0], "20260101T000000Z-ffffffff", "--records", str(tmp_path)]) == 2
    assert "give the id of a record" in capsys.readouterr().out
