"""Imports go down only: between the packages, and between the layers inside of one."""

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

# From the bottom up, names with spaces between. A part is a module or a folder; a module that lies elsewhere than its
# folder is named by itself. Parts of one layer may import one another, as long as they form no circle.
LAYERS = {
    "ecospa": (
        "class_swap health importance journal known_refusals manifest optimizer_twin pairs plan_text selection "
        "state_layout",
        "attention folders laid_out_attention optimizer_trial probe projections stock tying unit_selection width_rule",
        "config",
        "batch_parts claim optimizers resume schedule trace wrappers",
        "block_layout cuttable estimator families loss_weights optimizer_state roofline scaled_importance step_counter "
        "unit_effects",
        "frozen gradient_window merged plan ranking width_timing",
        "accounting exactness",
        "dense memory_budget width_check",
        "reshaping shape",
        "surgery",
        "estimator_choice saved_shape small_model sparsifier",
        "agreement filling forecast loading one_shot shape_rules sparsity timm_models trainer_checkpoint",
        "architecture calibration_text checkpoint narrowed outlook padding ranking_check shape_search source_bundle",
        "distributed export forecast_time huggingface model_folder verification",
        "forecast_text",
        "commands",
        "__main__",
    ),
    "benchmarks": (
        "data.source experiment",
        "task",
        "specs",
        "data",
        "metrics models timing.compilation",
        "training",
        "capabilities",
        "pretrained",
        "timing",
        "tasks",
        "procedures",
        "experiments",
        "registry",
        "execution",
        "packing",
        "commands",
        "cli",
        "__main__",
    ),
}
PURE = ("importance", "selection", "unit_selection")


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


def part_of(module: str) -> tuple[int, str] | None:
    """Number of the layer of a module, and the longest part that names it; None where no layer does."""
    package, _, rest = module.partition(".")
    parts = rest.split(".")
    for length in range(len(parts), 0, -1):
        part = ".".join(parts[:length])
        for number, layer in enumerate(LAYERS[package]):
            if part in layer.split():
                return number, f"{package}.{part}"
    return None


def forbidden_between_layers(package: str, root: Path) -> list[str]:
    """Imports inside a package that go up, and modules that no layer names."""
    wrong = []
    for path in modules(package, root=root):
        module = dotted_name(path, root)
        own = (len(LAYERS[package]), package) if module == package else part_of(module)
        if own is None:
            wrong.append(f"{place(path, root=root)} has no layer: add it to LAYERS")
            continue
        targets = {
            target: item.line
            for item in reversed(imports(path, root))
            if item.name.split(".")[0] == package and (target := part_of(item.name)) is not None
        }
        wrong += [
            f"{place(path, line, root)} imports {part}, which lies above it"
            for (number, part), line in targets.items()
            if number > own[0]
        ]
    return wrong


def imported_modules(path: Path, known: set[str], root: Path) -> set[str]:
    """Those of the known modules that a module imports, whole or something of them."""
    names = {item.name for item in imports(path, root)}
    return {name if name in known else name.rpartition(".")[0] for name in names} & known


def circles(package: str, root: Path) -> list[str]:
    """Modules of a package that import each other in a circle, or stand on one."""
    paths = {dotted_name(path, root): path for path in modules(package, root=root)}
    below = {
        module: imported_modules(path, set(paths) - {package, module}, root)
        for module, path in paths.items()
        if module != package
    }
    while leaves := [module for module, targets in below.items() if not targets & set(below)]:
        for module in leaves:
            del below[module]
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
    assert foreign_imports("paper_tables", {"results", "pandas", "matplotlib", "numpy", "scipy", "PIL"}, ROOT) == []


def test_paper_tables_never_loads_torch() -> None:
    names = [dotted_name(path) for path in modules("paper_tables", "results") if path.name != "__main__.py"]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("package", LAYERS)
def test_layers_import_downwards_only(package: str) -> None:
    assert forbidden_between_layers(package, ROOT) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_form_no_circle(package: str) -> None:
    assert circles(package, ROOT) == []


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
    assert len(forbidden_between_layers("ecospa", tmp_path)) == 1


def test_a_relative_import_out_of_a_subpackage_is_found(tmp_path: Path) -> None:
    plant(
        tmp_path, ecospa__families__gpt2="from ..surgery import apply_plan\nfrom . import llama\nfrom ..pairs import x"
    )
    assert forbidden_between_layers("ecospa", tmp_path) == [
        "ecospa/families/gpt2.py:1 imports ecospa.surgery, which lies above it"
    ]


def test_a_module_without_a_layer_is_found(tmp_path: Path) -> None:
    plant(tmp_path, ecospa__newcomer="import math")
    assert forbidden_between_layers("ecospa", tmp_path) == ["ecospa/newcomer.py has no layer: add it to LAYERS"]


def test_a_circle_is_found(tmp_path: Path) -> None:
    plant(
        tmp_path,
        ecospa__estimator="from ecospa import surgery",
        ecospa__surgery="import ecospa.accounting",
        ecospa__accounting="def f():\n    from ecospa.estimator import x",
        ecospa__config="import math",
    )
    assert circles("ecospa", tmp_path) == ["ecospa.accounting", "ecospa.estimator", "ecospa.surgery"]


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
