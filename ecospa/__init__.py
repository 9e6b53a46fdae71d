"""ecospa: transformers that become smaller while they train, by coupled sparsity (EcoSpa, arXiv 2511.11641).

In every block some weight matrices meet only through an inner dimension. They are scored together, lose the same
indices of that dimension together, and the smaller dense model trains on. The names below are the public interface;
what needs a trainer or a checkpoint is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ecospa import accounting, importance, schedule, selection, shape_rules
from ecospa.config import ConfigError, EcoSpaConfig
from ecospa.estimator import CoupledEstimator, ImportanceEstimator, TiedImportanceWarning
from ecospa.families import coupled_pairs
from ecospa.health import FailureSignatureWarning, LossWatch
from ecospa.memory_budget import MemoryBudget
from ecospa.merged import merge_projections, split_projections
from ecospa.one_shot import plan_shrink
from ecospa.optimizer_state import InexactOptimizerWarning, OptimizerStateError
from ecospa.pairs import CoupledPair, PairKind, UnsupportedModelError, WeightAxis
from ecospa.plan import PlanError, SparsityPlan
from ecospa.ranking_check import check_ranking
from ecospa.shape import Shape, ShapeError
from ecospa.shape_search import find_shape
from ecospa.small_model import build_small
from ecospa.sparsifier import CoupledSparsifier
from ecospa.sparsity import CoupledSparsity, ShrinkEvent, SkippedEventWarning, TargetNotReachedWarning
from ecospa.surgery import apply_plan
from ecospa.verification import Verification, verify
from ecospa.width_check import check_widths
from ecospa.width_rule import WidthRule

if TYPE_CHECKING:
    from ecospa.checkpoint import CheckpointError, from_config, from_pretrained, save_pretrained
    from ecospa.export import export_model
    from ecospa.huggingface import EcoSpaCallback, EcoSpaTrainer

_LAZY = {
    "CheckpointError": "checkpoint",
    "export_model": "export",
    "from_config": "checkpoint",
    "from_pretrained": "checkpoint",
    "save_pretrained": "checkpoint",
    "EcoSpaCallback": "huggingface",
    "EcoSpaTrainer": "huggingface",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "CoupledEstimator",
    "CoupledPair",
    "CoupledSparsifier",
    "CoupledSparsity",
    "EcoSpaCallback",
    "EcoSpaConfig",
    "EcoSpaTrainer",
    "FailureSignatureWarning",
    "ImportanceEstimator",
    "InexactOptimizerWarning",
    "LossWatch",
    "MemoryBudget",
    "OptimizerStateError",
    "PairKind",
    "PlanError",
    "Shape",
    "ShapeError",
    "ShrinkEvent",
    "SkippedEventWarning",
    "SparsityPlan",
    "TargetNotReachedWarning",
    "TiedImportanceWarning",
    "UnsupportedModelError",
    "Verification",
    "WeightAxis",
    "WidthRule",
    "accounting",
    "apply_plan",
    "build_small",
    "check_ranking",
    "check_widths",
    "coupled_pairs",
    "export_model",
    "find_shape",
    "from_config",
    "from_pretrained",
    "importance",
    "merge_projections",
    "plan_shrink",
    "save_pretrained",
    "schedule",
    "selection",
    "shape_rules",
    "split_projections",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ecospa")
    if name in _LAZY:
        return getattr(importlib.import_module(f"ecospa.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'ecospa' has no attribute {name!r}")
