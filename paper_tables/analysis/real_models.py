"""Models that others have pretrained on text at large: they decide claims about language models, toys do not."""

from __future__ import annotations

PRETRAINED_AT_LARGE = ("meta-llama/Llama-2-7b-hf", "SmolLM2-135M-Instruct")
"""Names as they stand in the configuration of a run, the largest model first."""


def is_real(model: str) -> bool:
    """Return whether a model was pretrained on text at large."""
    return model in PRETRAINED_AT_LARGE


def position(model: str) -> int:
    """Return the place of a model in a table: real ones first, all others after them."""
    return PRETRAINED_AT_LARGE.index(model) if is_real(model) else len(PRETRAINED_AT_LARGE)
