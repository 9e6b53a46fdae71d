"""Content of an installation: the wheel's files, declared dependencies, and how little `import ecospa` loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import ecospa
from tests.repository.source import FOLDERS, ROOT, imports, modules, place

# Where the name that is imported is not the name that is installed.
DISTRIBUTION = {
    "sklearn": "scikit-learn", "lm_eval": "lm-eval", "torch_pruning": "torch-pruning", "PIL": "pillow",
    "pynvml": "nvidia-ml-py", "markdown_it": "markdown-it-py", "pytorch_optimizer": "pytorch-optimizer",
}  # fmt: skip
HEAVY = (
    "accelerate",
    "baselines",
    "benchmarks",
    "datasets",
    "lm_eval",
    "matplotlib",
    "pandas",
    "paper_tables",
    "results",
    "sklearn",
    "timm",
    "torch_pruning",
    "torchvision",
    "transformers",
)


def project() -> dict:
    """The project table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    """Names of the distributions in a list of requirements."""
    return {re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0] for requirement in requirements}


def undeclared(core: set[str], optional: set[str], root: Path, folders: tuple[str, ...] = ("ecospa",)) -> list[str]:
    """Third-party imports of the named folders without a dependency that provides them.

    What is imported together with its module must be a core dependency; what is imported on first use may be an extra.
    """
    wrong = []
    for path in modules(*folders, root=root):
        for found in imports(path, root):
            top = found.name.split(".")[0]
            if top in FOLDERS or top in sys.stdlib_module_names:
                continue
            if DISTRIBUTION.get(top, top) not in (core if found.at_import else core | optional):
                wrong.append(f"{place(path, found.line, root)} imports {top}")
    return wrong


def loaded(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running the code."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_carries_ecospa_alone(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed >= {path.relative_to(ROOT).as_posix() for path in modules("ecospa")}
    assert {name.split("/")[0] for name in packed} == {"ecospa"}
    assert "ecospa/py.typed" in packed


def test_the_wheel_carries_licence_and_requirements(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = message_from_string(wheel.read(name).decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
    core = names([value for value in metadata.get_all("Requires-Dist") if "extra ==" not in value])
    assert core == names(project()["dependencies"])


def test_every_import_of_ecospa_is_declared() -> None:
    optional = names(project()["optional-dependencies"]["vision"])
    assert undeclared(names(project()["dependencies"]), optional, ROOT) == []


def test_every_import_of_the_checkout_is_declared() -> None:
    extras = set().union(*map(names, project()["optional-dependencies"].values()))
    declared = names(project()["dependencies"]) | extras
    assert undeclared(declared, declared, ROOT, FOLDERS) == []


def test_no_requirement_has_an_upper_bound() -> None:
    tables = [project()["dependencies"], *project()["optional-dependencies"].values()]
    assert [requirement for table in tables for requirement in table if re.search(r"<|==|~=", requirement)] == []


def test_ecospa_says_its_version() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        assert ecospa.__version__ == tomllib.load(stream)["project"]["version"]


def test_importing_ecospa_is_light() -> None:
    assert loaded("import ecospa") & set(HEAVY) == set()


def test_what_is_heavy_is_seen() -> None:
    assert loaded("import ecospa, pandas") & set(HEAVY) == {"pandas"}


def test_undeclared_imports_are_found(tmp_path: Path) -> None:
    (tmp_path / "ecospa").mkdir()
    text = "import os, torch, timm\ndef f():\n    import timm\n    from sklearn.svm import SVC\n"
    (tmp_path / "ecospa" / "a.py").write_text(text)
    assert undeclared({"torch"}, {"timm"}, tmp_path) == [
        "ecospa/a.py:1 imports timm",
        "ecospa/a.py:4 imports sklearn",
    ]
