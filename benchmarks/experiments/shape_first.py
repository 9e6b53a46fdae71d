"""Shape first: a short probe finds the widths, and a fresh model of them trains for all the steps.

What it tests: whether the way to EcoSpa's shape is worth its price. GPT-2 is trained from scratch at 30 % of its block
parameters. A probe is EcoSpa over 10 or 20 % of the steps, with a warm-up and a decay of its own, down to the target;
then its weights are thrown away and a fresh model of its widths is trained. FLOPs of the probe are part of the run:

- shape_10, shape_20: the literal method, at as many steps as EcoSpa has, the probe on top.
- shape_10_taylor, shape_10_units (and 20): pairs ranked by first-order Taylor; all units ranked together by their
  first-order effect per parameter.
- ..._equal_flops: the same, trained on until probe and training have cost as much as EcoSpa.
- shape_10_average: the mean widths of three probes.
- shape_10_kept, shape_20_kept: the weights are kept and trained on, within the same steps, which is EcoSpa with its
  curve pressed into the beginning.
- linear_taper, feed_forward_first: shapes by a rule, without any probe.

Controls, those of coupled_vs_uncoupled, run once: ecospa, final_shape and final_shape_equal_flops (a fresh model in
EcoSpa's own final shape, which a whole run had to find), small_dense and small_dense_equal_flops (uniform widths),
dense.

Command: python -m benchmarks run shape_first --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.03 (11 runs, 6 of them shared), cpu 4.5 (184 runs, 48 of them shared, 2 cores),
gpu 1 (69 runs, one H100-class GPU), paper 250 (69 runs, one H200-class GPU); estimated from coupled_vs_uncoupled.

Data: those of coupled_vs_uncoupled; at tier cpu 20 tokens per block parameter (specs/from_scratch.py), eight seeds.

Expected result: a probe of 20 % comes close to final_shape, and at equal training FLOPs the fresh model is ahead of
EcoSpa, as it trains small for longer. If a rule is level with the probes, the search is worth nothing. The smoke tier
shows that everything works and no more.
"""

from __future__ import annotations

from types import MappingProxyType

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import coupled_vs_uncoupled
from benchmarks.experiments.coupled_vs_uncoupled import ECOSPA, SCALES
from benchmarks.specs.from_scratch import CLAIM_SEEDS, TARGETS
from benchmarks.specs.shape_first import ProbeSpec, shape_first_settings

NAME = "shape_first"
TARGET = TARGETS[-1]
EQUAL_FLOPS = "_equal_flops"
KEPT = "_kept"
PROBES = MappingProxyType(
    {
        f"shape_{percent}{rule}": ProbeSpec(method, percent / 100)
        for percent in (10, 20)
        for rule, method in (("", "ecospa"), ("_taylor", "ecospa_first_order"), ("_units", "ecospa_units"))
    }
)
"""Arm at equal steps -> its probe; each has one at equal FLOPs, too."""
AVERAGE = "shape_10_average"
RULES = ("linear_taper", "feed_forward_first")
SHARED = ("ecospa", "dense", "small_dense", "small_dense_equal_flops", "final_shape", "final_shape_equal_flops")
"""Cells of coupled_vs_uncoupled."""
METHODS = (
    "ecospa",
    *PROBES,
    *(name + EQUAL_FLOPS for name in PROBES),
    AVERAGE,
    "shape_10_kept",
    "shape_20_kept",
    *RULES,
    *SHARED[1:],
)
AT_SMOKE = ("shape_20", "shape_20_units_equal_flops", "shape_20_kept", AVERAGE, "feed_forward_first", *SHARED)


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every arm at the one size; some of them at tier smoke."""
    left_out = set(METHODS) - set(AT_SMOKE) if tier == "smoke" else set()
    return tuple(_cell(tier, method) for method in methods if method.name not in left_out)


def _cell(tier: Tier, method: MethodRef) -> Cell:
    name, scale = method.name, SCALES[tier]
    if name in SHARED:
        return coupled_vs_uncoupled.cell(tier, method, None if name == "dense" else TARGET)
    seeds = CLAIM_SEEDS if tier == "cpu" else None
    if name == AVERAGE:
        settings = shape_first_settings(name, scale, TARGET, ProbeSpec("ecospa", 0.1, runs=3))
    elif name.endswith(EQUAL_FLOPS):
        ours = coupled_vs_uncoupled.cell(tier, MethodRef("ecospa"), TARGET)
        settings = shape_first_settings(name, scale, TARGET, PROBES[name.removesuffix(EQUAL_FLOPS)], ours)
    elif name in PROBES:
        settings = shape_first_settings(name, scale, TARGET, PROBES[name])
    elif name.endswith(KEPT):
        curve = PROBES[name.removesuffix(KEPT)].shrink(scale.settings(method, TARGET).shrink)
        pressed = {part: getattr(curve, part) for part in ("start_step", "end_step", "interval")}
        return Cell(NAME, tier, name, scale.settings(MethodRef(name, ECOSPA), TARGET, **pressed), seeds)
    else:
        return Cell(NAME, tier, name, scale.settings(method, TARGET), seeds)
    return Cell(NAME, tier, name, settings, seeds)


EXPERIMENT = Experiment(
    name=NAME,
    question="GPT-2 from scratch at 30 %: widths from a probe of 10 or 20 % of the steps, then a fresh model of them",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.03, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=4.5, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=1, machine="one H100-class GPU", memory=9),
        "paper": TierPlan(seeds=(0, 1, 2), hours=250, machine="one H200-class GPU", memory=46, data=0.3, disk=7),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier].sources,
    worth=lambda cell: cell.method in ("ecospa", "shape_20", "final_shape"),
)
