"""The page of this folder says what the dataclasses say, and what it shows runs."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from results import MethodInfo, Metric, PlanEvent, RunRecord
from results.__main__ import main

TEXT = (Path(__file__).parents[2] / "results" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("kind", [RunRecord, Metric, PlanEvent, MethodInfo])
def test_the_schema_is_that_of_the_dataclass(kind: type) -> None:
    table = TEXT.partition(f"A `{kind.__name__}`")[2].partition("|\n\n")[0]
    rows = [re.split(r"(?<!\\)\|", line) for line in table.splitlines() if line.startswith("| `")]
    shown = [tuple(cell.strip().strip("`").replace("\\", "") for cell in row[1:3]) for row in rows]
    assert shown == [(field.name, field.type) for field in dataclasses.fields(kind)]


@pytest.mark.parametrize("code", [block for language, block in BLOCKS if language == "python"])
def test_python_on_the_page_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "results/README.md", "exec"), {})
    assert "ecospa" in capsys.readouterr().out


@pytest.mark.parametrize("line", [line for lang, block in BLOCKS if lang == "bash" for line in block.splitlines()])
def test_commands_on_the_page_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "results"] and main(words[3:]) == 0
    assert (tmp_path / words[4]).stat().st_size > 1000
