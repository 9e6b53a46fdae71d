"""Compiled decode from a static cache by swapped classes vs. the stock ones, as whoever serves a cut model gets it.

One command: `tox run -e bench -- -k decode`.
"""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks.specs.synthetic import SpeedProtocol
from benchmarks.timing.candidates import swap_classes
from benchmarks.timing.compilation import compiling
from benchmarks.timing.inference import decode
from tests.bench.timing import MODELS, VOCABULARY, interleaved

pytestmark = pytest.mark.bench
SEQUENCE, GENERATED, ROUNDS = 64, 16, 31


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_swapped_classes_decode_as_the_stock_ones_do(benchmark, tell, kind, batch):
    stock = MODELS[kind]()
    swapped = copy.deepcopy(stock)
    swap_classes(swapped)
    tokens = torch.randint(1, VOCABULARY, (batch, SEQUENCE), generator=torch.Generator().manual_seed(0))
    protocol = SpeedProtocol("decode", batch, SEQUENCE, ROUNDS, generated=GENERATED)
    with compiling(True, torch.get_num_threads()):
        models = {"stock": stock, "swapped": swapped}
        timed = {name: decode(model, [{"input_ids": tokens}], protocol, "compiled") for name, model in models.items()}

        def refill():
            for one in timed.values():
                one.ready(0)

        actions = {name: lambda one=one: one.work(0) for name, one in timed.items()}
        seconds = interleaved(benchmark, actions, rounds=ROUNDS, before=refill)
    name = f"{kind}, {batch} at a time, classes swapped / stock: compiled decode"
    tell(name, seconds["swapped"], seconds["stock"], limit=1.1, promised=1.02)
