"""A record says how tables show its method; what is no method has nothing to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import registry
from benchmarks.execution.recording import method_info
from benchmarks.experiment import Cell, MethodRef, Run
from results import MethodInfo

OWN = '''
from baselines import TrainingMethod

class Mine(TrainingMethod):
    name = "mine"
    title = "My own method"
    removes = "zeros"
    group = "ideas"

class Child(Mine):
    """Has no name of its own, so no title either."""

class Silent(TrainingMethod):
    name = "silent"
'''


def cell(experiment: str, *references: MethodRef) -> Cell:
    return registry.experiment(experiment).cells("cpu", references)[0]


@pytest.mark.parametrize(
    ("experiment", "method", "expected"),
    [
        ("coupled_vs_uncoupled", "ecospa", MethodInfo("EcoSpa", "structures", "EcoSpa")),
        ("compare", "wanda_2_4", MethodInfo("Wanda 2:4", "zeros", "masks")),
        # one class under several settings: the name says which
        ("gpt2_pretraining", "dense_twice_steps", MethodInfo("dense_twice_steps", "nothing", "dense control")),
        ("sparsity_limits", "qk", None),
        ("mismatch_error", "index_removal", None),
    ],
)
def test_methods_of_the_suite_and_what_is_no_method(experiment: str, method: str, expected: MethodInfo | None) -> None:
    assert method_info(Run(cell(experiment, MethodRef(method)), 0)) == expected


@pytest.mark.parametrize(
    ("name", "of_class", "expected"),
    [
        ("mine", "Mine", MethodInfo("My own method", "zeros", "ideas")),
        ("Child", "Child", MethodInfo("Child", "zeros", "ideas")),
        ("silent", "Silent", MethodInfo("silent", "structures", "custom")),
    ],
)
def test_a_custom_method(
    name: str, of_class: str, expected: MethodInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "methods_with_titles.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    reference = MethodRef(name, f"methods_with_titles:{of_class}", custom=True)
    assert method_info(Run(cell("coupled_vs_uncoupled", reference), 0)) == expected
