"""The whole way from a store to files: complete, the same every time, self-contained, honest when there is nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from paper_tables import items, render, terminal_table
from paper_tables.__main__ import main
from paper_tables.item import Plot
from paper_tables.report.caveats import caveats, tokens_per_parameter
from paper_tables.report.parts import Content, content, inline
from paper_tables.report.render import COMMITTED_FIGURES
from results import PlanEvent, Store
from tests.paper_tables.conftest import CUSTOM_TITLE
from tests.results.factory import make_record

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Collects ids and references, and checks that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "srcset", "data", "action"):
                self.references.append((tag, value or ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def folder(rendered_store: Path) -> Path:
    return rendered_store


@pytest.fixture(scope="module")
def text(rendered_store: Path) -> str:
    return (rendered_store / "report.html").read_text(encoding="utf-8")


def test_a_table_names_what_never_finished_in_every_format(tmp_path: Path) -> None:
    made = Store(tmp_path / "records")
    made.append(make_record(1, {"perplexity": 70.0}))
    made.append(make_record(2, method="magnitude", status="failed", error="full"))
    out = render("smoke", tmp_path / "out", made).parent
    line = "Not finished: magnitude mask at 50"
    for name in ("coupled_vs_uncoupled.md", "coupled_vs_uncoupled.tex", "report.html"):
        assert line in (out / name).read_text(encoding="utf-8")


def test_every_item_with_records_is_rendered(store: Store, folder: Path) -> None:
    made = {record.experiment for record in store.records(tier="smoke")}
    shown = [item for item in items() if not item.experiments or made & set(item.experiments)]
    without = {name for item in items() if item not in shown for name in item.experiments}
    assert without == {"learning_rates", "failure_signatures", "shape_first"}  # whose tests make their own
    shown = [item for item in shown if item.name != "compare_smollm2"]  # no made-up record is of that model
    suffixes = {"table": (".md", ".tex"), "figure": (".png", ".svg")}
    each = ("coupled_vs_uncoupled",)  # of the made-up experiments the one that trains
    names = {name: item.kind for item in shown for name in ([item.name] if not getattr(item, "each", False) else [])}
    names |= {f"{item.name}_{name}": item.kind for item in shown for name in each if getattr(item, "each", False)}
    expected = {f"{name}{suffix}" for name, kind in names.items() for suffix in suffixes[kind]} | {"report.html"}
    assert {path.name for path in folder.iterdir()} == expected
    assert all(path.stat().st_size > 200 for path in folder.iterdir())


def test_the_same_records_give_the_same_bytes(store: Store, folder: Path, tmp_path: Path) -> None:
    render("smoke", tmp_path, store)
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_page_needs_nothing_but_itself(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    for tag, reference in page.references:
        assert reference.startswith(("#", "data:")), (tag, reference)
        assert not reference.startswith("#") or reference[1:] in page.ids
    outside = re.findall(r"url\((?!#|&quot;#)[^)]*\)|@import", text)
    assert outside == []
    assert "<script" not in text and "<link" not in text and "<img" not in text


def test_the_page_is_for_phones_and_the_dark_too(text: str) -> None:
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text and "max-width: 40rem" in text
    assert "var(--ink)" in text.partition("<main>")[2]  # the drawings follow the page's colours
    assert "#1b1f24" not in text.partition("<main>")[2] and "#ffffff" not in text.partition("<main>")[2]


def test_headline_claims_come_first(text: str) -> None:
    anchors = ("answer", "limits", "thesis", "e-coupled_vs_uncoupled", "e-mismatch_error", "environment", "not-run")
    places = [text.index(f'<section id="{anchor}"') for anchor in anchors]
    assert places == sorted(places)
    assert "needs LLaMA-1B on C4" in text
    beside = re.findall(r"small dense of equal size: -0\.0\d+ nats, EcoSpa better(?:</td>|<br>)", text)
    assert text.count('data-name="Controls"') == len(beside) == 4
    assert (
        "direction holds at reduced scale (n=3, Holm p&lt;0.001 of" in text
        and "the opposite is measured at reduced scale, n=3" in text
    )


def test_caveats_follow_the_answer(text: str) -> None:
    limits = text.partition('<section id="limits"')[2].partition("</section>")[0]
    assert "Reduced scale: models of" in limits and "measured on: CPU" in limits and "3 seeds per cell" in limits


def test_caveats_are_made_from_the_records() -> None:
    history, curve = (PlanEvent(0, 9_000, 1_000, {}),), ((1, 5.0),)
    training = {"steps": 10, "batch_size": 8}  # 10 steps of 8 sequences of 64 tokens: 5.12 tokens per parameter
    common = {"method": "dense", "target": None, "plan_history": history, "loss_curve": curve, "training": training}
    record = make_record(1, {"perplexity": 9.0}, **common)
    assert tokens_per_parameter(record) == 5.12
    assert tokens_per_parameter(make_record(2, {"perplexity": 9.0, "tokens_per_parameter": 20.0}, **common)) == 20.0
    trained = make_record(3, {"perplexity": 9.0}, **common, model={"name": "trained", "pretraining": {"steps": 9}})
    assert tokens_per_parameter(trained) is None and tokens_per_parameter(make_record(4, {"top1": 0.5})) is None
    scale, regime, machine, seeds = caveats("cpu", [record])
    assert "1.000 k to 1.000 k block parameters" in scale and "CPU; a GPU may" in machine
    assert "5.1 to 5.1" in regime and regime.endswith("Below it: coupled_vs_uncoupled.")
    assert seeds.startswith("At most 1 seed per cell")
    enough = make_record(5, {"perplexity": 9.0, "tokens_per_parameter": 20.0}, **common)
    assert "Below it" not in caveats("cpu", [enough])[1]
    assert len(caveats("paper", [trained])) == 2 and caveats("cpu", []) == ()


def test_an_experiment_has_its_claims_tables_figures_protocol_and_runs_together(text: str) -> None:
    section = text.partition('<section id="e-coupled_vs_uncoupled">')[2].partition("</section>")[0]
    parts = (
        "python -m benchmarks run coupled_vs_uncoupled --tier smoke",
        'class="card',
        'id="table-coupled_vs_uncoupled"',
        'id="table-controls"',
        'id="figure-pareto"',
        'id="figure-loss_curves_coupled_vs_uncoupled"',
        "Protocol and notes",
        "sequence_length 64",
        'id="r-20260101T000000Z-00000000"',
    )
    places = [section.find(part) for part in parts]
    assert -1 not in places and places == sorted(places)
    assert 'id="table-compare"' not in section
    assert section.count("Protocol: bos True") == 1  # what two tables say alike stands once


def test_the_contents_lead_to_every_experiment(text: str) -> None:
    for menu in ('<nav class="side"', '<details class="toc"'):
        links = text.partition(menu)[2].partition("</ul>")[0]
        for name in ("coupled_vs_uncoupled", "compare", "pruning_cost", "mismatch_error", "llama_pretraining"):
            assert f'href="#e-{name}"' in links


def test_long_tables_are_folded_and_short_ones_are_not(text: str) -> None:
    def before_table(name: str) -> str:
        return text.partition(f'<figure id="table-{name}">')[2].partition("<table>")[0]

    assert '<details class="fold"><summary>96 rows</summary>' in before_table("compare")
    assert "<details" not in before_table("controls")


def test_drawings_in_the_page_are_text_and_short(folder: Path, text: str) -> None:
    drawn = text.partition('<figure id="figure-pareto">')[2].partition("</figure>")[0]
    assert ">uncoupled importance</text>" in drawn
    assert len(drawn) < 0.6 * (folder / "pareto.svg").stat().st_size


@pytest.mark.parametrize(("points", "wide"), [(417.6, False), (835.2, True)])
def test_a_drawing_in_two_columns_has_the_whole_width_of_the_page(points: float, wide: bool) -> None:
    (plot,) = (item for item in items() if isinstance(item, Plot) and item.name == "pareto")
    made = content(Content(plot, (), svg=f'<svg viewBox="0 0 {points} 300"></svg>'), {})
    assert ('<figure id="figure-pareto" class="wide">' in made) == wide


def test_paths_are_rounded_and_relative() -> None:
    svg = (
        '<svg width="1" height="2"><path id="a" d="M 10.04 20 \nL 11.26 19.5 \nL 0 0 \n"/><path d="M 1.234 2 z"/></svg>'
    )
    made = inline(svg, "x", "a <title>")
    assert 'd="M10 20l1.3 -0.5l-11.3 -19.5"' in made and 'd="M 1.2 2 z"' in made
    assert made.startswith('<svg role="img" aria-label="a &lt;title&gt;">') and 'id="x-a"' in made


def test_every_run_is_told_with_commit_device_and_command(text: str, store: Store) -> None:
    for record in store.records(tier="smoke"):
        assert f'id="r-{record.id}"' in text
    assert "commit 0123456789, Test CPU" in text and "commit 0123456789 + changes" in text
    assert "sequence_length 64" in text and "torch 2.11.0" in text
    assert "MemoryError: &lt;full&gt;" in text and "<full>" not in text
    assert "<little>" not in text  # what a model wrote is text, not markup


def test_a_custom_method_is_in_tables_and_plots_by_its_title_and_other_tiers_are_not(folder: Path, text: str) -> None:
    assert CUSTOM_TITLE in (folder / "coupled_vs_uncoupled.md").read_text(encoding="utf-8")
    drawn = text.partition('<figure id="figure-pareto">')[2].partition("</figure>")[0]
    assert f">{CUSTOM_TITLE}</text>" in drawn
    assert "1.250" not in (folder / "coupled_vs_uncoupled.md").read_text(encoding="utf-8")


def test_pictures_carry_no_date(folder: Path) -> None:
    for path in folder.glob("*.svg"):
        assert "dc:date" not in path.read_text(encoding="utf-8"), path.name
    for path in folder.glob("*.png"):
        assert b"Software" not in path.read_bytes() and b"Creation" not in path.read_bytes(), path.name


def test_an_empty_store_says_what_was_not_run_and_how(tmp_path: Path) -> None:
    empty = Store(tmp_path / "none")
    text = render("gpu", tmp_path / "out", empty).read_text(encoding="utf-8")
    assert Page(text).open == []
    assert "python -m benchmarks reproduce --tier gpu" in text
    assert "python -m benchmarks run coupled_vs_uncoupled --tier gpu" in text
    assert "measured</dt>" not in text and "<svg" not in text
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".tex", ".html"}
    assert "python -m benchmarks reproduce --tier gpu" in terminal_table("gpu", empty)


def test_a_figure_that_lost_its_records_is_not_left_behind(tmp_path: Path) -> None:
    old = ("pareto.png", "pareto.svg", "controls.md", "loss_curves_of_old.png")
    for name in (*old, "mine.md", "pareto.jpg"):
        (tmp_path / name).write_text("old")
    render("smoke", tmp_path, Store(tmp_path / "none"))
    assert not any((tmp_path / name).exists() for name in old) and (tmp_path / "pareto.jpg").exists()
    assert (tmp_path / "mine.md").read_text() == "old"


def test_the_terminal_gets_a_narrow_table_and_the_verdicts(store: Store) -> None:
    text = terminal_table("smoke", store)
    assert max(map(len, text.splitlines())) <= 120
    for part in ("EcoSpa, own pace", "Nats per token", "Not reproduced (", "Not run (", CUSTOM_TITLE):
        assert part in text


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = Store(tmp_path / "records")
    path = records.append(make_record(1, {"perplexity": 30.0, "block_parameters_nonzero": 4e5}))
    out = tmp_path / "out"
    arguments = ["--tier", "smoke", "--records", str(records.folder), "--out", str(out)]
    assert main([*arguments, "--all"]) == 0
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out
    made = {path.name for path in out.iterdir()}
    assert {"claims.md", "claims.tex", "pareto.png", "pareto.svg", "report.html"} <= made
    for flag, kept in (("--latex", ".tex"), ("--svg", ".svg"), ("--html", ".html")):
        assert main([*arguments, flag]) == 0
        assert {path.suffix for path in out.iterdir()} - {".png"} == {".md", kept}
    capsys.readouterr()
    assert main(arguments) == 0
    assert f"tables: {out}" in capsys.readouterr().out
    left = {path.name for path in out.iterdir()}
    pictures = {f"{name}.png" for name in COMMITTED_FIGURES}
    assert left == {name for name in made if name.endswith(".md") or name in pictures}
    path.write_text("{")
    assert main(arguments) == 1
    assert path.name in capsys.readouterr().err


def test_the_registry_orders_tables_before_figures() -> None:
    kinds = [item.kind for item in items()]
    assert kinds == sorted(kinds, reverse=True)
    assert len({item.name for item in items()}) == len(kinds)
    assert all(item.title and item.caption for item in items())


def test_records_of_one_seed_still_make_a_report(tmp_path: Path) -> None:
    store = Store(tmp_path / "records")
    for number, method in enumerate(("ecospa", "uncoupled", "magnitude")):
        store.append(make_record(number, {"perplexity": 30.0 + number, "step_time": 0.1}, method=method))
    text = render("smoke", tmp_path / "out", store).read_text(encoding="utf-8")
    assert "needs 3 seeds, has 1" in text
    table = text.partition('<figure id="table-')[2].partition("<figcaption>")[0]
    assert "31.00" in table and "±" not in table


def test_records_of_another_experiment_are_not_called_none(tmp_path: Path) -> None:
    other = Store(tmp_path)
    other.append(make_record(1, {"step_time_ratio": 0.5}, experiment="training_speed"))
    text = terminal_table("smoke", other)
    assert "No finished records" not in text and text.startswith("Not run (")
