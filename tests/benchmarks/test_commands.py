"""The command line: what it says, what it returns, and what it does not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import commands, registry
from benchmarks.__main__ import main
from benchmarks.execution.provenance import ROOT
from benchmarks.experiment import MethodRef
from results.store import Store
from tests.benchmarks.tiny_runs import HERE, Interrupting, carry_out, tiny_experiment, use_tiny_experiment


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_experiment(monkeypatch, tiny_experiment(("dense", "ecospa")))
    for name in ("run", "reproduce"):
        command = getattr(commands, name)
        monkeypatch.setattr(commands, name, lambda options, console, obey=command: obey(options, console, carry_out))
    monkeypatch.setattr(commands, "make_tables", lambda tier, records: 0)


def arguments(tmp_path: Path, *words: str) -> list[str]:
    return [*words, "--records", str(tmp_path / "records"), "--work", str(tmp_path / "work"), "--threads", "1"]


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert "coupled_vs_uncoupled" in capsys.readouterr().out
    assert main(["show", "mismatch_error"]) == 0
    out = capsys.readouterr().out
    assert "Expected result" in out and "index_removal" in out
    assert main(["show", "pretrained_shrink", "--tier", "smoke"]) == 0
    assert "it needs the weights of stories260K" in capsys.readouterr().out


def test_the_plan_needs_neither_torch_nor_a_network(tmp_path: Path) -> None:
    code = (
        "import sys; from benchmarks.__main__ import main; "
        f"code = main(['reproduce', '--tier', 'smoke', '--dry-run', '--records', {str(tmp_path)!r}]); "
        "print('torch' in sys.modules, 'transformers' in sys.modules, code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False 0"
    wanted = [registry.experiment(name) for name in registry.experiments()]
    cells = {e.name: e.cells("smoke", tuple(map(MethodRef, e.methods))) for e in wanted if "smoke" in e.tiers}
    runs = {  # a cell that two experiments share is run once
        (cell.experiment, cell.method, cell.config_hash, seed)
        for name, found in cells.items()
        for cell in found
        for seed in registry.experiment(name).tiers["smoke"].seeds
    }
    assert f"{len(runs)} pending" in done.stdout
    assert "pretrained_shrink: not in tier smoke" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("tiny")
def test_a_second_reproduce_finds_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, "reproduce")) == 0
    assert "2 finished, 0 failed" in capsys.readouterr().out
    assert main(arguments(tmp_path, "reproduce")) == 0
    assert "all 2 runs are done, nothing is pending" in capsys.readouterr().out
    assert len(Store(tmp_path / "records").records()) == 2
    assert main(arguments(tmp_path, "reproduce", "--force")) == 0
    assert len(Store(tmp_path / "records").records()) == 4


@pytest.mark.usefixtures("tiny")
def test_failures_are_listed_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, "run", "tiny", "--methods", f"{HERE}:Failing", "dense")) == 1
    out = capsys.readouterr().out
    assert "1 finished, 1 failed" in out
    assert out.index("1 finished, 1 failed") < out.index("FAILED tiny failing target None seed 0: RuntimeError: it was")


@pytest.mark.usefixtures("tiny")
def test_an_interrupt_has_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interrupting, "armed", True)
    words = arguments(tmp_path, "run", "tiny", "--jobs", "1", "--methods", "dense", f"{HERE}:Interrupting", "ecospa")
    assert main(words) == 130
    assert "the same command goes on from here" in capsys.readouterr().out
    assert [record.method for record in Store(tmp_path / "records").records()] == ["dense"]
    assert main(words) == 0
    assert len(Store(tmp_path / "records").records()) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "nothing"), "experiment is 'nothing'; choose from"),
        (("run",), "names is empty"),
        (("run", "coupled_vs_uncoupled", "--threads", "0"), "threads is 0; it must be at least 1"),
        (("run", "coupled_vs_uncoupled", "--methods", "ekospa"), "method is 'ekospa'; choose one of"),
        (("reproduce", "--methods", ":x"), "my_package.my_module:MyMethod"),
    ],
)
def test_a_wrong_argument_is_explained(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--records", str(tmp_path)]) == 2
    assert message in capsys.readouterr().out


def test_runs_without_their_data_are_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ECOSPA_DATA", raising=False)
    assert main(["run", "coupled_vs_uncoupled", "--tier", "cpu", "--records", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "156 unavailable" in out
    assert "156 runs cannot be made: source 'opendocs', tier 'cpu'" in out
