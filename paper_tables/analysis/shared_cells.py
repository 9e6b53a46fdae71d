"""Cells that several experiments of tier cpu have in common, recorded once: which experiment borrows which records.

The experiments that train a GPT-2 from scratch share model, text and schedule, so that their dense models, EcoSpa and
the controls are the same runs. Those stand under `coupled_vs_uncoupled`; tables, figures and claims of the others get
them from here, on the same model, data, protocol and training as their own runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from paper_tables.analysis.context import TRAINING, TWICE, context
from results import RunRecord

LENDER = "coupled_vs_uncoupled"
BORROWERS = ("importance_metrics", "k_theta_sweep", "gpt2_pretraining")
TIER = "cpu"
METHODS = (
    *("dense", "small_dense", "ecospa", "uniform_pairs", "random_pairs"),
    *("small_dense_equal_flops", "dense_average_size"),
    *("final_shape", "final_shape_other_seed", "final_shape_equal_flops"),
)
"""Methods that are lent: what every comparison from scratch needs beside what it asks about."""


def of_experiment(records: Sequence[RunRecord], experiment: str) -> list[RunRecord]:
    """Return the records of an experiment, and behind them those that it borrows.

    Borrowed are runs of METHODS in the setting of its own runs: model, data, protocol, steps and batch; and of a
    shrunk model those of a target that its own shrunk models have, of all targets where it has none of its own.
    """
    own = [record for record in records if record.experiment == experiment]
    if experiment not in BORROWERS:
        return own
    targets: dict[str, set[float]] = {}
    for record in own:
        if record.tier == TIER and record.status == "finished":
            found = targets.setdefault(_setting(record), set())
            if record.config.get("target") is not None:
                found.add(record.config["target"])
    return [*own, *(record for record in records if _is_lent(record, targets))]


def _is_lent(record: RunRecord, targets: dict[str, set[float]]) -> bool:
    if (record.experiment, record.tier) != (LENDER, TIER) or record.method not in METHODS:
        return False
    wanted = targets.get(_setting(record))
    if wanted is None or record.status != "finished":
        return False
    target = record.config.get("target")
    return target is None or not wanted or target in wanted


def _setting(record: RunRecord) -> str:
    """Return model, data, protocol and length of a run; a run of twice the steps belongs to those of half of them."""
    training = record.config.get("training") or {}
    found = {name: training.get(name) for name in TRAINING}
    if record.method == TWICE and found["steps"]:
        found["steps"] //= 2
    return f"{context(record)} {sorted(found.items())}"
