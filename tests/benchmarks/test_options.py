"""Every option of every command, with nonsense: a message that names field, value, range and way out, and code 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import commands
from benchmarks.__main__ import main
from benchmarks.experiment import MethodRef
from benchmarks.training.methods import named
from results.store import Store
from tests.benchmarks.tiny_runs import HERE, carry_out, tiny_experiment, use_tiny_experiment

COMMANDS = {"run": ["run", "mismatch_error"], "reproduce": ["reproduce"], "compare": ["compare"]}
NONSENSE = {
    "seeds": (
        *("-1", "2147483648", "99999999999999999999"),
        *("one", "1.5", "nan", "1e3", "0x1", ""),
    ),
    "threads": ("0", "-1", "1025", "many", "1.0"),
    "jobs": ("0", "-1", "257", "many", "nan"),
}
PARSED = re.compile(r"-?\d+")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("option", "value"), [(name, value) for name, values in NONSENSE.items() for value in values])
def test_a_number_out_of_range_is_named(
    command: str, option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*COMMANDS[command], "--dry-run", "--records", str(tmp_path), f"--{option}", value]
    try:
        code = main(words)
    except SystemExit as left:  # what is no number is refused by the parser
        assert not PARSED.fullmatch(value)
        code = int(left.code or 0)
    told = " ".join("".join(capsys.readouterr()).split())
    assert code == 2 and option in told
    if PARSED.fullmatch(value):
        assert re.search(rf"{option} (is|has) {value}; .*(from 0 to 2147483647|at least 1 and at most)", told)


@pytest.mark.parametrize("value", ["", ",", "0", "-0.5", "1.1", "nan", "inf", "half", "0.5,", "0.5;0.4", "1e-400"])
def test_shares_are_shares(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--dry-run", "--records", str(tmp_path), f"--sizes={value}"]) == 2
    assert re.search(r"sizes is .*; give shares in \(0, 1\]", " ".join(capsys.readouterr().out.split()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "mismatch_error", "--methods", ""], "method is ''"),
        (["run", "mismatch_error", "--methods", "ecospa,"], "method is ''"),
        (["run", "mismatch_error", "--records", "x" * 5000], "records is"),
        (["run", "mismatch_error", "--work", "a\0b"], "work is"),
        (["run", "mismatch_error", "--weights", "/nowhere/at/all"], "weights is"),
        (["reproduce", "--only", "nothing"], "experiment is 'nothing'"),
        (["compare", "--model", "gpt5"], "model is 'gpt5'"),
        (["show", "nothing"], "experiment is 'nothing'"),
        (["why-different", "a", "b"], "record is 'a'"),
        (["why-different", "a.json", "b.json"], "cannot be read"),
    ],
)
def test_a_word_that_is_none_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words if words[0] in ("show", "why-different") else [*words, "--dry-run"]) == 2
    assert message in capsys.readouterr().out


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_experiment(monkeypatch, tiny_experiment(("dense", "ecospa")))
    command = commands.run
    monkeypatch.setattr(commands, "run", lambda options, console: command(options, console, carry_out))


def run(folder: Path, *words: str) -> int:
    places = ["--records", str(folder / "records"), "--work", str(folder / "work"), "--jobs", "1"]
    return main(["run", *words, *places])


@pytest.mark.usefixtures("tiny")
def test_what_is_named_twice_is_run_once(tmp_path: Path) -> None:
    assert run(tmp_path, "tiny", "tiny", "--methods", "dense,ecospa,dense", "--seeds", "3", "3") == 0
    found = Store(tmp_path / "records").records()
    assert [(record.method, record.seed) for record in found] == [("dense", 3), ("ecospa", 3)]


ON_IMPORT = {
    "leaves": "import sys; sys.exit()",
    "leaves_with_zero": "import sys; sys.exit(0)",
    "leaves_with_words": "raise SystemExit('done')",
    "raises_its_own": "class Own(BaseException): pass\nraise Own('mine')",
    "generator": "raise GeneratorExit",
    "syntax": "def (:",
    "misses": "import a_package_that_is_not_there",
    "divides": "1 / 0",
    "halves": "raise RuntimeError('\\udc80')",
    "prints_and_leaves": "print('hello'); import subprocess, sys; subprocess.run([sys.executable, '-c', '']); exit(0)",
}


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ON_IMPORT)
def test_a_method_whose_import_goes_wrong_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"method_that_{name}.py").write_text(ON_IMPORT[name])
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(tmp_path, "tiny", "--methods", f"method_that_{name}:Method") == 2
    told = capsys.readouterr().out
    assert f"error: method is 'method_that_{name}:Method', whose import failed: " in told
    assert not (tmp_path / "records").exists()


@pytest.mark.usefixtures("tiny")
def test_an_interrupt_while_a_method_is_imported_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "method_that_interrupts.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(tmp_path, "tiny", "--methods", "method_that_interrupts:Method") == 130
    assert "while method_that_interrupts:Method was imported" in capsys.readouterr().out


METHODS = """
import sys
from baselines import TrainingMethod
from baselines.wanda import Wanda as Mask

class Mine(TrainingMethod):
    name = "my.own_1"
class Other(TrainingMethod):
    name = "my.own_1"
class Unnamed(Mine):
    pass
class Taken(TrainingMethod):
    name = "wanda"
class Spaced(TrainingMethod):
    name = "my method | `x`"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "methods_with_names.py").write_text(METHODS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "methods_with_names"


def test_a_method_is_called_as_it_calls_itself(place: str) -> None:
    found = named(MethodRef.parse(f"{place}:Mine"), ())
    assert (found.name, found.location, found.argument) == ("my.own_1", f"{place}:Mine", f"{place}:Mine")
    assert named(MethodRef.parse(f"{place}:Unnamed"), ()).name == "Unnamed"
    assert named(MethodRef.parse("baselines.wanda:Wanda"), ()) == named(MethodRef.parse(f"{place}:Mask"), ())
    assert named(MethodRef.parse("baselines.wanda:Wanda"), ()) == MethodRef("wanda")
    assert MethodRef("ecospa_at_end", "baselines.coupled_sparsity:EcoSpa").argument == "ecospa_at_end"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("{0}:Taken", "whose name 'wanda' is another method's; rename it"),
        ("{0}:Spaced", "whose name is 'my method | `x`'; a name has letters, digits, '_' and '.' only"),
        ("{0}:Mine,{0}:Other", "are both called 'my.own_1'; rename one of them"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_before_the_run(
    methods: str, message: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "tiny", "--methods", methods.format(place)) == 2
    assert message in capsys.readouterr().out


@pytest.mark.usefixtures("tiny")
def test_an_error_that_is_no_text_ends_no_campaign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.benchmarks.tiny_runs as tiny_runs

    def fail(run, place):  # type: ignore[no-untyped-def]
        if run.cell.method == "failing":
            raise RuntimeError("half a letter \udc80 and \x1b[31m")
        return tiny_runs.instant(run, place)

    use_tiny_experiment(monkeypatch, tiny_experiment(("dense",), execute=fail))
    assert run(tmp_path, "tiny", "--methods", f"{HERE}:Failing", "dense") == 1
    told = capsys.readouterr().out
    assert "1 finished, 1 failed" in told and told.count(r"half a letter \udc80 and \x1b[31m") == 2
    assert len(Store(tmp_path / "records").records(status=None)) == 2


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("leaving", [SystemExit(0), GeneratorExit(), BaseException("own")])
def test_a_run_that_leaves_is_a_failed_run(
    leaving: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(run, place):  # type: ignore[no-untyped-def]
        raise leaving

    use_tiny_experiment(monkeypatch, tiny_experiment(("dense",), execute=leave))
    assert run(tmp_path, "tiny") == 1
    (record,) = Store(tmp_path / "records").records(status="failed")
    assert type(leaving).__name__ in (record.error or "")
