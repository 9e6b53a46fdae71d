"""Transformer blocks compiled one by one while a model trains, because a cut changes their shapes again and again.

A whole model would be compiled again at every event, for tens of seconds; a block takes a part of that, and blocks of
equal shapes share it. Shapes are fixed (`dynamic=False`), so kernels are made for the widths that there are, and
surgery makes torch forget the old ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from benchmarks.timing import compilation
from ecospa.families import transformer_blocks

_CALLS = 4
"""Graphs of one block: with and without gradients, in training and in evaluation mode."""
_TOTAL = 256
"""The number of compilations after which torch gives up, unless there are more blocks."""


@contextmanager
def compiled_blocks(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Compile the blocks of a model for the time of a training; the model itself and its names stay as they are.

    Args:
        model: holds its blocks for the whole time, whatever is cut out of them.
        wanted: whether anything is compiled; if not, nothing happens.

    Raises:
        ValueError: the model has no transformer block of a known family.
    """
    if not wanted:
        yield
        return
    blocks = transformer_blocks(model).values()
    if not blocks:
        raise ValueError(f"compile_blocks is set, but {type(model).__qualname__} has no block of a known family")
    limit = _CALLS * len(blocks)  # all blocks run the same lines, so torch counts their shapes together
    limits = {"recompile_limit": limit, "accumulated_recompile_limit": max(_TOTAL, limit)}
    for block in blocks:
        block.compile(backend=compilation.BACKEND, dynamic=False)
    try:
        with torch._dynamo.config.patch(**limits):
            yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None
        torch.compiler.reset()
