"""Imports go down only: between the packages, and between the layers inside ecospa."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.source import PACKAGES, ROOT, dotted_name, imports, modules, parse, place

MAY_IMPORT = {
    "ecospa": set(),
    "baselines": {"ecospa"},
    "results": set(),
    "benchmarks": {"baselines", "ecospa", "results"},
    "paper_tables": {"results"},
}

# From the bottom up. Modules of one layer may import one another, as long as they form no circle.
LAYERS = (
    {
        "class_swap",
        "importance",
        "journal",
        "manifest",
        "optimizer_twin",
        "pairs",
        "plan_text",
        "selection",
        "state_layout",
    },
    {
        "attention",
        "folders",
        "optimizer_trial",
        "probe",
        "projections",
        "stock",
        "tying",
        "width_rule",
    },
    {
        "config",
    },
    {
        "batch_parts",
        "claim",
        "optimizers",
        "resume",
        "schedule",
        "trace",
        "wrappers",
    },
    {
        "cuttable",
        "estimator",
        "families",
        "loss_weights",
        "optimizer_state",
        "roofline",
        "step_counter",
    },
    {
        "frozen",
        "gradient_window",
        "merged",
        "plan",
        "ranking",
        "width_timing",
    },
    {
        "accounting",
        "exactness",
    },
    {
        "dense",
        "memory_budget",
    },
    {
        "reshaping",
    },
    {
        "surgery",
    },
    {
        "saved_shape",
        "sparsifier",
    },
    {
        "agreement",
        "filling",
        "forecast",
        "loading",
        "one_shot",
        "sparsity",
        "timm_models",
        "trainer_checkpoint",
    },
    {
        "architecture",
        "checkpoint",
        "outlook",
    },
    {
        "distributed",
        "export",
        "forecast_time",
        "huggingface",
        "verification",
    },
    {
        "forecast_text",
    },
    {
        "__main__",
    },
)
PURE = ("importance", "selection")


def forbidden_between_packages(root: Path) -> list[str]:
    """Imports of one of our packages by another that must not know it; `tests` is known by none."""
    wrong = []
    for package in PACKAGES:
        for path in modules(package, root=root):
            for found in imports(path, root):
                target = found.name.split(".")[0]
                if target in {*PACKAGES, "tests"} - MAY_IMPORT[package] - {package}:
                    wrong.append(f"{place(path, found.line, root)} imports {found.name}")
    return wrong


def foreign_imports(package: str, allowed: set[str], root: Path) -> list[str]:
    """Imports from outside the package and the standard library that are not allowed."""
    known = {package, *allowed, *sys.stdlib_module_names}
    return [
        f"{place(path, found.line, root)} imports {found.name}"
        for path in modules(package, root=root)
        for found in imports(path, root)
        if found.name.split(".")[0] not in known
    ]


def layer_of(module: str) -> int | None:
    """Number of the layer of a module of ecospa; None where no layer names it."""
    if module == "ecospa":
        return len(LAYERS)
    part = module.split(".")[1]
    return next((number for number, layer in enumerate(LAYERS) if part in layer), None)


def imported_parts(path: Path, root: Path) -> dict[str, int]:
    """Modules of ecospa that a module imports, the part after the first dot, with the line of the first import."""
    known = set().union(*LAYERS)
    found: dict[str, int] = {}
    for item in imports(path, root):
        parts = item.name.split(".")
        if parts[0] == "ecospa" and len(parts) > 1 and parts[1] in known:
            found.setdefault(parts[1], item.line)
    return found


def forbidden_between_layers(root: Path) -> list[str]:
    """Imports inside ecospa that go up, and modules that no layer names."""
    wrong = []
    for path in modules("ecospa", root=root):
        module = dotted_name(path, root)
        own = layer_of(module)
        if own is None:
            wrong.append(f"{place(path, root=root)} has no layer: add it to LAYERS")
            continue
        for part, line in imported_parts(path, root).items():
            target = layer_of(f"ecospa.{part}")
            if target is not None and target > own:
                wrong.append(f"{place(path, line, root)} imports ecospa.{part}, which lies above it")
    return wrong


def circles(root: Path) -> list[str]:
    """Parts of ecospa that import each other in a circle."""
    below: dict[str, set[str]] = {}
    for path in modules("ecospa", root=root):
        module = dotted_name(path, root)
        if module != "ecospa":
            part = module.split(".")[1]
            below.setdefault(part, set()).update(set(imported_parts(path, root)) - {part})
    while leaves := [part for part, targets in below.items() if not targets & set(below)]:
        for part in leaves:
            del below[part]
    return sorted(below)


def uses_modules_of_torch(path: Path, root: Path) -> list[str]:
    """Lines on which a module reaches for torch.nn."""
    found = [item.line for item in imports(path, root) if f"{item.name}.".startswith("torch.nn.")]
    found += [
        node.lineno
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.nn"
    ]
    return [place(path, line, root) for line in found]


def test_packages_import_downwards_only() -> None:
    assert forbidden_between_packages(ROOT) == []


def test_results_needs_the_standard_library_and_for_a_frame_pandas() -> None:
    assert foreign_imports("results", {"pandas"}, ROOT) == []


def test_paper_tables_needs_results_and_plotting_only() -> None:
    assert foreign_imports("paper_tables", {"results", "pandas", "matplotlib", "numpy", "PIL"}, ROOT) == []


def test_paper_tables_never_loads_torch() -> None:
    names = [dotted_name(path) for path in modules("paper_tables", "results") if path.name != "__main__.py"]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_ecospa_layers_import_downwards_only() -> None:
    assert forbidden_between_layers(ROOT) == []


def test_ecospa_modules_form_no_circle() -> None:
    assert circles(ROOT) == []


@pytest.mark.parametrize("name", PURE)
def test_pure_maths_knows_no_modules(name: str) -> None:
    assert uses_modules_of_torch(ROOT / "ecospa" / f"{name}.py", ROOT) == []


# What follows plants each violation and sees that it is found: a rule that cannot fail guards nothing.


def plant(root: Path, **sources: str) -> None:
    for name, text in sources.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("ecospa__config", "import baselines"),
        ("ecospa__config", "def f():\n    from benchmarks.data import source"),
        ("baselines__magnitude", "from results import Store"),
        ("benchmarks__report", "import importlib\nimportlib.import_module('paper_tables.report')"),
        ("paper_tables__table", "from ecospa import pairs"),
        ("results__store", "import benchmarks as b"),
        ("results__store", "from tests import shapes"),
    ],
)
def test_a_forbidden_package_is_found(tmp_path: Path, module: str, text: str) -> None:
    plant(tmp_path, **{module: text})
    assert len(forbidden_between_packages(tmp_path)) == 1


def test_allowed_packages_are_not_reported(tmp_path: Path) -> None:
    plant(tmp_path, benchmarks__runner="import ecospa, baselines.methods\nfrom results.store import Store")
    assert forbidden_between_packages(tmp_path) == []


def test_a_foreign_import_is_found(tmp_path: Path) -> None:
    plant(tmp_path, results__store="import json\nfrom results import record\ndef f():\n    import numpy.linalg")
    assert foreign_imports("results", set(), tmp_path) == ["results/store.py:4 imports numpy.linalg"]


@pytest.mark.parametrize(
    "text", ["from ecospa import surgery", "import ecospa.sparsity", "from . import surgery", "from .plan import x"]
)
def test_an_import_upwards_is_found(tmp_path: Path, text: str) -> None:
    plant(tmp_path, ecospa__selection=text)
    assert len(forbidden_between_layers(tmp_path)) == 1


def test_a_relative_import_out_of_a_subpackage_is_found(tmp_path: Path) -> None:
    plant(
        tmp_path, ecospa__families__gpt2="from ..surgery import apply_plan\nfrom . import llama\nfrom ..pairs import x"
    )
    assert forbidden_between_layers(tmp_path) == [
        "ecospa/families/gpt2.py:1 imports ecospa.surgery, which lies above it"
    ]


def test_a_module_without_a_layer_is_found(tmp_path: Path) -> None:
    plant(tmp_path, ecospa__newcomer="import math")
    assert forbidden_between_layers(tmp_path) == ["ecospa/newcomer.py has no layer: add it to LAYERS"]


def test_a_circle_is_found(tmp_path: Path) -> None:
    plant(
        tmp_path,
        ecospa__estimator="from ecospa import surgery",
        ecospa__surgery="import ecospa.accounting",
        ecospa__accounting="def f():\n    from ecospa.estimator import x",
        ecospa__config="import math",
    )
    assert circles(tmp_path) == ["accounting", "estimator", "surgery"]


@pytest.mark.parametrize(
    "text",
    [
        "import torch.nn as nn",
        "from torch import Tensor, nn",
        "import torch\nx = torch.nn.Linear",
        "from torch.nn import f",
    ],
)
def test_modules_in_pure_maths_are_found(tmp_path: Path, text: str) -> None:
    plant(tmp_path, ecospa__selection=text)
    assert len(uses_modules_of_torch(tmp_path / "ecospa" / "selection.py", tmp_path)) == 1
