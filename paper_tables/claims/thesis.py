"""The paper's thesis, part by part: EcoSpa against the control that lacks one part of the method, or has its cost.

Every line is a comparison from scratch in `coupled_vs_uncoupled`; adding one is adding a row here.
"""

from __future__ import annotations

from paper_tables.analysis.formats import share
from paper_tables.claims.judges import faster_at_the_end
from paper_tables.claims.published import ECOSPA
from paper_tables.claims.quality_judges import beats
from paper_tables.claims.verdicts import Claim

TARGETS = (0.5, 0.3)

_SUMMARY = "summary of the paper [S]"
_CONTROL = "control asked for by the reviews [R]"
_OWN = "this project's own control"

ALIGNMENT = "alignment"
JOINT = "joint importance"
GRADUAL = "gradual"
ALLOCATION = "allocation"
INDICES = "choice of indices"
WAY = "the way there vs. the shape"
SIZE = "size alone"
MASKS = "structures vs. masks"

COMPARISONS = (
    (ALIGNMENT, "uncoupled", "Removing coupled indices beats choosing them per matrix", _SUMMARY),
    (JOINT, "uncoupled_importance", "Joint importance of a pair beats importance per matrix", _SUMMARY),
    (GRADUAL, "ecospa_at_start", "Cutting gradually beats one cut at the start", _OWN),
    (GRADUAL, "ecospa_at_end", "Cutting gradually beats one cut at the end", _OWN),
    (ALLOCATION, "uniform_pairs", "Chosen pairs beat narrowing every pair alike on the same curve", _OWN),
    (ALLOCATION, "random_pairs", "Chosen indices beat random ones, removed aligned on the same curve", _OWN),
    (INDICES, "random_indices", "Chosen indices beat random ones of the same pairs", _OWN),
    (WAY, "final_shape", "Shrinking beats a fresh model in the final shape at equal steps", _OWN),
    (WAY, "final_shape_other_seed", "Shrinking beats a fresh model in the final shape of another seed", _OWN),
    (WAY, "final_shape_equal_flops", "Shrinking beats a fresh model in the final shape at equal training FLOPs", _OWN),
    (SIZE, "small_dense", "Shrinking beats a small dense model of equal size from scratch", _CONTROL),
    (SIZE, "small_dense_equal_flops", "Shrinking beats a small dense model at equal training FLOPs", _CONTROL),
    (SIZE, "dense_average_size", "Shrinking beats a dense model of its average size", _OWN),
    (SIZE, "dense", "Shrinking beats the dense model at equal steps", _CONTROL),
    (MASKS, "magnitude", "Shrinking beats masking the smallest weights at equal non-zero size", _OWN),
)
"""Part of the method, method that EcoSpa is compared with, statement and source."""


def thesis_claims() -> tuple[Claim, ...]:
    """Return these claims at every target, part by part."""
    return tuple(
        Claim(statement(other, target), source, "lower perplexity", False, beats(other, target), part=part)
        for part, other, _, source in COMPARISONS
        for target in TARGETS
    )


def statement(other: str, target: float) -> str:
    """Return the statement of the comparison with a method at a target, by which its claim is found.

    Args:
        other: a method of COMPARISONS.
        target: one of TARGETS.
    """
    return f"{next(text for _, name, text, _ in COMPARISONS if name == other)}, {_kept(target)}"


def mechanical_claims() -> tuple[Claim, ...]:
    """Return what follows from the size alone."""
    return tuple(
        Claim(
            f"A training step of the shrunk model is faster than a dense one, {_kept(target)}",
            f"{ECOSPA} [A]",
            "less time",
            False,
            faster_at_the_end(target),
            mechanical=True,
        )
        for target in TARGETS
    )


def _kept(target: float) -> str:
    return f"at {share(target)} of the block parameters"
