"""The claims about the method itself: the sizes of GPT-2, which pairs are cut, and how K and theta are chosen.

`paper_tables.claims.statements` puts them behind the headlines.
"""

from __future__ import annotations

from paper_tables.analysis.k_theta_grid import FROM_SCRATCH, TRAINED
from paper_tables.claims import published
from paper_tables.claims.grid_judges import better
from paper_tables.claims.pretraining_judges import smaller_beats
from paper_tables.claims.quality_judges import beats
from paper_tables.claims.verdicts import Claim

_APPENDIX = "summary of the paper, Appendix C.1 [S]"
_CONTROL = "control asked for by the reviews [R]"
_OWN = "this project's own control"


def method_claims() -> tuple[Claim, ...]:
    """Return these claims."""
    return (*_gpt2(), *_importance(), *_k_and_theta())


def _gpt2() -> tuple[Claim, ...]:
    number = published.GPT2_EARLIER_PERPLEXITY
    earlier = Claim(
        "GPT-2-Small, 1.6 times smaller, has 0.6 lower perplexity than dense at twice the steps",
        f"{number.reference}; model and baseline [I]",
        f"{number.metric} {number.value:g}",
        False,
        smaller_beats("dense_twice_steps", 1.6, "GPT-2-Small", number),
    )
    rows = (
        ("dense", "the dense model at equal steps"),
        ("small_dense", "a small dense model of equal size from scratch"),
    )
    controls = (
        Claim(
            f"GPT-2, {times:g} times smaller, beats {against}",
            _CONTROL,
            "lower perplexity",
            False,
            smaller_beats(other, times, model),
        )
        for times, model in ((1.6, "GPT-2-Small"), (2.2, "GPT-2-Medium"))
        for other, against in rows
    )
    return (earlier, *controls)


def _importance() -> tuple[Claim, ...]:
    rows = (
        ("importance_random", "drawing them at random"),
        ("importance_weight", "taking those of the smallest weights"),
    )
    return tuple(
        Claim(
            f"Choosing pairs by Fisher information beats {text}, all else equal",
            _OWN,
            "lower perplexity",
            False,
            beats(other, None, "importance_metrics"),
        )
        for other, text in rows
    )


def _k_and_theta() -> tuple[Claim, ...]:
    return (
        Claim(
            "A larger theta is better in pre-training, at one final size",
            _APPENDIX,
            "lower perplexity",
            False,
            better("theta", FROM_SCRATCH, larger=True),
        ),
        Claim(
            "A smaller K is better in fine-tuning, at one final size",
            _APPENDIX,
            "lower perplexity",
            False,
            better("top_k", TRAINED, larger=False),
        ),
    )
