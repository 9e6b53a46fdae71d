"""Cells that several experiments have in common, recorded once: which experiment borrows which records.

At tier cpu the experiments that train a GPT-2 from scratch share model, text and schedule, so that their dense models,
EcoSpa and the controls are the same runs. Those stand under `coupled_vs_uncoupled`, those of an image classifier under
`vit_cifar10`; tables, figures and claims of the others get them from here, on the same model, data, protocol and
training as their own runs. `shape_first` has the scales of `coupled_vs_uncoupled`, and borrows, at every tier.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from paper_tables.analysis.context import TRAINING, TWICE, context
from results import RunRecord

LENDERS = MappingProxyType(
    {
        "importance_metrics": "coupled_vs_uncoupled",
        "k_theta_sweep": "coupled_vs_uncoupled",
        "gpt2_pretraining": "coupled_vs_uncoupled",
        "shape_first": "coupled_vs_uncoupled",
        "deit_imagenet": "vit_cifar10",
    }
)
"""Experiment that borrows -> experiment whose records these are."""
TIERS = ("cpu",)
"""Tiers at which an experiment borrows, but for those of EVERY_TIER."""
EVERY_TIER = frozenset({"shape_first"})
_COMMON = (
    *("dense", "small_dense", "ecospa", "uniform_pairs", "random_pairs"),
    *("small_dense_equal_flops", "dense_average_size"),
    *("final_shape", "final_shape_other_seed", "final_shape_equal_flops"),
)
METHODS = MappingProxyType({"coupled_vs_uncoupled": _COMMON, "vit_cifar10": (*_COMMON, "magnitude")})
"""Methods that are lent: what every comparison from scratch needs beside what it asks about."""


def of_experiment(records: Sequence[RunRecord], experiment: str) -> list[RunRecord]:
    """Return the records of an experiment, and behind them those that it borrows.

    Borrowed are runs of METHODS in the setting of its own runs: model, data, protocol, steps and batch; and of a
    shrunk model those of a target that its own shrunk models have, of all targets where it has none of its own.
    """
    own = [record for record in records if record.experiment == experiment]
    lender = LENDERS.get(experiment)
    if lender is None:
        return own
    targets: dict[str, set[float]] = {}
    for record in own:
        if (record.tier in TIERS or experiment in EVERY_TIER) and record.status == "finished":
            found = targets.setdefault(_setting(record), set())
            if record.config.get("target") is not None:
                found.add(record.config["target"])
    return [*own, *(record for record in records if _is_lent(record, lender, targets))]


def _is_lent(record: RunRecord, lender: str, targets: dict[str, set[float]]) -> bool:
    if record.experiment != lender or record.method not in METHODS[lender]:
        return False
    wanted = targets.get(_setting(record))
    if wanted is None or record.status != "finished":
        return False
    target = record.config.get("target")
    return target is None or not wanted or target in wanted


def _setting(record: RunRecord) -> str:
    """Return tier, model, data, protocol and length of a run; twice the steps belong to half of them."""
    training = record.config.get("training") or {}
    found = {name: training.get(name) for name in TRAINING}
    if record.method == TWICE and found["steps"]:
        found["steps"] //= 2
    return f"{record.tier} {context(record)} {sorted(found.items())}"
