"""A pack runs on a machine without a network and without the suite's packages, by one command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.execution.pack import Contents, Part, write
from benchmarks.execution.packages import CARRIED, HARNESS, distributions
from results.archive import import_records
from results.store import Store

ABSENT = (
    *("tyro", "rich", "datasets", "lm_eval", "docstring_parser", "typeguard", "shtab", "dill", "multiprocess"),
    *("pygments", "markdown_it", "mdurl"),
)
ECHO = """
import json, os, sys, lacking
names = ("PYTHONPATH", "PYTHONSAFEPATH", "ECOSPA_DATA", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
print(json.dumps({"words": sys.argv[1:], "lacking": lacking.__file__, **{name: os.environ[name] for name in names}}))
"""


def small(folder: Path, digest: str = "1") -> Contents:
    """A pack whose command says how it was called; one package is carried in vain, the other is needed."""
    parts = []
    for place, text in (
        ("code/benchmarks/__init__.py", ""),
        ("code/benchmarks/__main__.py", ECHO),
        ("data/one.parquet", "rows"),
        ("packages/lacking/lacking.py", ""),
        ("packages/there/json/__init__.py", "raise ImportError"),
    ):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        parts.append(Part(place, path, f"{place.partition('/')[0]} {path.stem}"))
    order = {
        "words": ["run", "one"],
        "origin": {"commit": "0" * 40, "dirty": False},
        "packages": {"lacking": ["lacking"], "there": ["json"]},
        "needed": ["never_compiled"],
        "digest": digest,
    }
    return Contents(tuple(parts), order)


def call(archive: Path, folder: Path, *words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Call a pack from a folder, with nothing of this checkout on the path."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ECOSPA_DATA")}
    command = [python, str(archive), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_pack_unpacks_what_is_lacking_and_runs_its_command(tmp_path: Path) -> None:
    archive = tmp_path / "small.zip"
    write(small(tmp_path / "parts"), archive, 100_000)
    (tmp_path / "benchmarks").mkdir()  # a checkout in the way
    done = call(archive, tmp_path, "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "unpacking to" in done.stdout and "not to be carried: never_compiled" in done.stdout
    said = json.loads(done.stdout.splitlines()[-1])
    place = tmp_path / "small"
    assert said["words"] == ["run", "one", "--seeds", "1", "--pack", str(tmp_path / "small-records.zip")]
    assert said["lacking"] == str(place / "packages" / "lacking.py")
    assert said["ECOSPA_DATA"] == str(place / "data") and (place / "data" / "one.parquet").exists()
    assert not (place / "packages" / "json").exists(), "what the machine has itself was replaced"
    assert json.loads((place / "code" / "origin.json").read_text()) == {"commit": "0" * 40, "dirty": False}
    again = call(archive, tmp_path, "--pack", "own.zip")
    assert again.returncode == 0 and "unpacking" not in again.stdout
    assert json.loads(again.stdout.splitlines()[-1])["words"][-2:] == ["--pack", "own.zip"]


def test_another_pack_of_the_same_name_is_not_mixed_in(tmp_path: Path) -> None:
    archive = tmp_path / "small.zip"
    write(small(tmp_path / "parts"), archive, 100_000)
    assert call(archive, tmp_path).returncode == 0
    write(small(tmp_path / "parts", digest="2"), archive, 100_000)
    done = call(archive, tmp_path)
    assert done.returncode == 2 and "holds something else" in done.stderr


def test_a_pack_above_the_limit_is_refused_with_its_largest_parts(tmp_path: Path) -> None:
    chosen = small(tmp_path / "parts")
    (tmp_path / "parts" / "data" / "one.parquet").write_bytes(os.urandom(70_000))
    with pytest.raises(ValueError, match=r"limit is 0\.1 MB .*largest parts: data one 0\.1 MB; "):
        write(chosen, tmp_path / "small.zip", 60_000)
    assert not (tmp_path / "small.zip").exists()


def test_what_is_carried_is_pure_python_and_brings_its_requirements() -> None:
    found = {one.name: one for one in distributions(CARRIED)}
    assert {"tyro", "rich", "datasets", "dill", "multiprocess", "docstring-parser"} <= found.keys()
    assert "torch" not in found and "transformers" not in found
    assert found["rich"].modules == ("rich",) and "rich/__init__.py" in found["rich"].files
    assert found["pyarrow"].files == {}, "it is compiled for one kind of machine"
    harness = next(one for one in distributions((HARNESS,)) if one.name == HARNESS)
    tasks = {
        place.split("/")[2] for place in harness.files if place.startswith("lm_eval/tasks/") and place.count("/") > 2
    }
    assert tasks == {"super_glue", "piqa", "hellaswag", "winogrande", "arc", "openbookqa", "gsm8k", "bbh"}


def test_the_pack_of_a_tier_holds_its_data_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("opendocs/default/train-0.parquet", "tokenizers/gpt2/tokenizer.json", "rajpurkar__squad/x.parquet"):
        (tmp_path / "mirror" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mirror" / place).write_text("content")
    monkeypatch.setenv("ECOSPA_DATA", str(tmp_path / "mirror"))
    words = ["--only", "coupled_vs_uncoupled", "--tier", "gpu", "--records", str(tmp_path / "records")]
    archive = tmp_path / "tier.zip"
    assert main(["pack", str(archive), *words, "--packages", "rich"]) == 0
    assert "runs; on the other machine, python tier.zip does python -m benchmarks run" in capsys.readouterr().out
    held = set(zipfile.ZipFile(archive).namelist())
    assert {"__main__.py", "pack.json", "code/ecospa/__init__.py", "packages/rich/rich/__init__.py"} <= held
    assert {name for name in held if name.startswith("data/")} >= {"data/opendocs/default/train-0.parquet"}
    assert not any("squad" in name for name in held if name.startswith("data/"))
    assert not any(name.endswith(".pyc") or "/rendered/" in name for name in held)


def poorer(folder: Path) -> str:
    """A Python with everything that this one has but the packages that a rented machine lacks; returns its path."""
    venv.create(folder, with_pip=False, symlinks=True)
    (target,) = (folder / "lib").glob("python*/site-packages")
    for path in map(Path, sys.path):
        if path.name in ("site-packages", "dist-packages"):
            for entry in path.iterdir():
                known = entry.name.replace("-", "_").partition(".")[0].rstrip("_0123456789").lower()
                if known not in ABSENT and entry.suffix != ".pth" and "ecospa" not in entry.name:
                    (target / entry.name).symlink_to(entry)
    return str(folder / "bin" / "python")


@pytest.mark.slow
def test_a_pack_runs_without_the_packages_of_the_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = poorer(tmp_path / "python")
    tried = f"import importlib.util as u; print([n for n in {ABSENT!r} if u.find_spec(n)])"
    there = subprocess.run([python, "-c", tried], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == "[]"
    archive = tmp_path / "smoke.zip"
    words = ["--tier", "smoke", "--only", "gpt2_pretraining", "--methods", "dense", "--records", str(tmp_path / "none")]
    assert main(["pack", str(archive), *words]) == 0
    done = call(archive, tmp_path, "--minutes", "10", python=python)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "0 failed" in done.stdout and "records packed" in done.stdout
    here = Store(tmp_path / "here")
    outcome = import_records(tmp_path / "smoke-records.zip", here)
    assert outcome.added and outcome.refused == ()
    assert {record.method for record in here.records()} == {"dense"}
