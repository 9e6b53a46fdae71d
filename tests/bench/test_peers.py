"""EcoSpa's one-shot plan and apply beside the library torch-pruning, on the same model in one interleaved run.

Both go from the call to the ready model, at half of the block parameters. torch-pruning gets gradients of a single
short sequence or image, so that its time is that of tracing, ranking and cutting and not of the calibration data.
"""

from __future__ import annotations

import copy

import pytest
import torch

import baselines
import ecospa
from benchmarks.procedures.pruning_cost import build, random_data
from benchmarks.specs.pruning_cost import CostModel, CostSettings
from benchmarks.training.compress import compress
from ecospa.accounting import parameters
from tests.bench.timing import interleaved

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("kind", ["bert", "vit", "llama"])
def test_plan_and_apply_are_not_slower_than_torch_pruning(benchmark, tell, kind):
    pytest.importorskip("torch_pruning", reason="needs the extra 'peers'")
    torch.manual_seed(0)
    spec = CostModel(kind, 6, 384, 6, 32)
    model = build(spec).eval()
    data = random_data(CostSettings(None, 0.5, spec, sequences=1, batch_size=1, turns=1), seed=0)
    kept = {}

    def ours():
        copied = copy.deepcopy(model)
        ecospa.apply_plan(copied, ecospa.plan_shrink(copied, target_size=0.5, target_scope="blocks"))
        kept["ours"] = parameters(copied, "blocks")

    def theirs():
        method = baselines.load("torch_pruning")(baselines.Budget(0.5, 1, 0, 1, 1))
        kept["theirs"] = parameters(compress(method, copy.deepcopy(model), data), "blocks")

    seconds = interleaved(benchmark, {"ours": ours, "theirs": theirs})
    whole = parameters(model, "blocks")
    assert all(abs(count / whole - 0.5) < 0.02 for count in kept.values()), kept
    tell(f"{kind}: plan and apply to half / torch-pruning", seconds["ours"], seconds["theirs"], 1.0, promised=1.0)
