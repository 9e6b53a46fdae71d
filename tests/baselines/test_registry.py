"""Discovery of methods, loading of custom ones, and what a budget refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import baselines
from baselines.method import Budget, TrainingMethod
from ecospa import ConfigError
from tests.baselines.runs import BUDGET, Run

CUSTOM = '''
from baselines import TrainingMethod

class LastLayerLess(TrainingMethod):
    """Counts its hooks."""
    name = "last_layer_less"
    def after_backward(self, state):
        self.calls = getattr(self, "calls", []) + [("backward", state.step)]
    def after_step(self, state):
        self.calls.append(("step", state.step))

class Inherited(LastLayerLess):
    pass

NOT_A_CLASS = 3
'''


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "custom_module.py").write_text(CUSTOM)
    (tmp_path / "custom_broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "custom_module"


def test_every_file_with_a_method_is_found() -> None:
    found = baselines.methods()
    assert list(found) == sorted(found)
    assert all(issubclass(method, TrainingMethod) and method.name == name for name, method in found.items())
    assert all(method.__module__.startswith("baselines.") and method.__doc__ for method in found.values())


def test_a_custom_method_is_loaded_and_driven(custom: str) -> None:
    method = baselines.load(f"{custom}:LastLayerLess")
    run = Run.fresh(method).train(2).finish()
    assert run.method.calls == [("backward", 0), ("step", 1), ("backward", 1), ("step", 2)]  # type: ignore[attr-defined]
    assert [entry["step"] for entry in run.method.history] == [0]
    assert baselines.load(f"{custom}:Inherited").name == "last_layer_less"
    assert "last_layer_less" not in baselines.methods()


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("no_such_method", "choose one of alice, .*, dense, "),
        (":Method", "my_package.my_module:MyMethod"),
        ("custom_module:", "my_package.my_module:MyMethod"),
        ("no_such_module:Method", "no module 'no_such_module'"),
        ("custom_module.deeper:Method", "no module"),
        ("custom_module:Nothing", "Nothing does not exist"),
        ("custom_module:NOT_A_CLASS", "no subclass"),
        ("baselines.method:TrainingMethod", "no subclass of baselines.TrainingMethod with a `name`"),
    ],
)
def test_what_is_no_method_is_refused(custom: str, location: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        baselines.load(location)


def test_a_custom_methods_broken_import_says_so_itself(custom: str) -> None:
    with pytest.raises(ValueError, match=r"whose import failed: No module named .a_package_that_is_not_there"):
        baselines.load("custom_broken:Method")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_size", 0), ("target_size", 0.0), ("target_size", 1.2), ("target_size", -0.5),
        ("target_size", float("nan")), ("target_size", "half"), ("total_steps", 0), ("total_steps", 2.5),
        ("start_step", -1), ("end_step", 2), ("end_step", 13), ("interval", 0), ("interval", None), ("curve", "steep"),
        ("target_scope", "heads"), ("width_multiple", 0), ("top_k", 0), ("top_k", 1.1), ("importance_threshold", 1.0),
        ("seed", -1), ("seed", None), ("learning_rate", -1.0), ("learning_rate", "fast"),
        ("weight_decay", float("nan")),
    ],
)  # fmt: skip
def test_a_senseless_budget_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(BUDGET, **{field: value})


def test_a_budget_becomes_a_configuration() -> None:
    curve, own = BUDGET.config(), BUDGET.config("paper")
    assert (curve.pace, curve.end_step, curve.interval, curve.start_step) == ("curve", 10, 2, 2)
    assert (own.pace, own.end_step, own.interval, own.target_size) == ("paper", None, 2, 0.5)
    assert Budget(None, 10, 0, 10, 1).target_size is None
