"""Sweep of learning rates: the validation loss of every arm at every rate, and which rate is its best."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import device_name, protocol_notes
from paper_tables.analysis.formats import NOTHING, share
from paper_tables.analysis.intervals import mean_interval
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label, rank
from results import RunRecord

_IMAGES = "vit"
"""Stands for the models of images, whose settings name no family."""
_FAMILIES = {"gpt2": "GPT-2", "llama": "LLaMA", _IMAGES: "ViT"}

Arm = tuple[str, str, float | None]
"""Family, method, target."""


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per arm, one column per rate."""
    arms: dict[Arm, list[RunRecord]] = {}
    for record in records:
        family = str((record.config.get("model") or {}).get("family", _IMAGES))
        if "eval_loss" in record.metrics:
            arms.setdefault((family, record.method, record.config.get("target")), []).append(record)
    rates = sorted({_rate(record) for record in records})
    ordered = sorted(arms, key=lambda arm: (arm[0], rank(arm[1]), arm[2] or 1.0))
    return pd.DataFrame([_row(arm, arms[arm], rates) for arm in ordered])


def _row(arm: Arm, own: Sequence[RunRecord], rates: Sequence[float]) -> dict[str, str]:
    family, method, target = arm
    losses = {
        rate: mean_interval([record.metrics["eval_loss"].value for record in own if _rate(record) == rate]).mean
        for rate in sorted({_rate(record) for record in own})
    }
    best = min(losses, key=lambda rate: losses[rate])
    edge = " (edge)" if len(losses) > 1 and best in (min(losses), max(losses)) else ""
    return {
        "Model": _FAMILIES.get(family, family),
        "Method": label(method),
        "Blocks kept": share(target),
        **{f"{rate:g}": f"{losses[rate]:.4f}" if rate in losses else NOTHING for rate in rates},
        "Best": f"{best:g}{edge}",
        "Seeds": str(len({record.seed for record in own})),
        "Tier": own[0].tier,
        "Device": ", ".join(sorted({device_name(record) for record in own})),
        RECORDS: " ".join(record.id for record in own),
    }


def _rate(record: RunRecord) -> float:
    return float((record.config.get("training") or {}).get("learning_rate", 0.0))


ITEM = Table(
    name="learning_rates",
    title="Learning rates",
    caption="Nats on validation data, per token or per image, at every peak learning rate. Best: the rate of the "
    "lowest loss, which the arm has where results are reported, on test data; (edge): the largest or smallest that was "
    "tried. One seed: a difference of a few hundredths is not one of rates alone.",
    experiments=("learning_rates",),
    build=build,
    notes=protocol_notes,
    place=9,
)
