"""The models that are trained from scratch have the published sizes, and the same weights for the same seed."""

from __future__ import annotations

import pytest
import torch

from benchmarks.experiment import MethodRef
from benchmarks.experiments import learning_rates, llama_pretraining
from benchmarks.models.language import build_model
from benchmarks.specs.language import ModelSpec
from benchmarks.specs.multiples import gated_width


@pytest.mark.parametrize(
    ("width", "layers", "heads", "millions"),
    [(512, 8, 8, 58.1), (768, 12, 12, 134.1), (1024, 24, 16, 367.9), (2048, 24, 32, 1339.0)],
)
def test_llamas_have_the_sizes_of_galores_table(width: int, layers: int, heads: int, millions: float) -> None:
    spec = ModelSpec(layers, width, heads, vocabulary=32_000, positions=256, family="llama")
    with torch.device("meta"):
        model = build_model(spec, seed=0, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_same_seed_gives_the_same_weights(family: str) -> None:
    spec = ModelSpec(2, 32, 4, vocabulary=50, positions=16, family=family)
    one, two, other = (build_model(spec, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_other_widths_and_families() -> None:
    assert gated_width(192) == 512 and gated_width(64) == 176 and gated_width(64) % 8 == 0
    with pytest.raises(ValueError, match="family is 'bert'; choose gpt2 or llama"):
        build_model(ModelSpec(2, 32, 4, 50, 16, family="bert"), 0)


def test_galore_and_its_peers_have_rates_of_their_own() -> None:
    cells = llama_pretraining.cells("cpu", tuple(MethodRef(name) for name in llama_pretraining.METHODS))
    rates = {cell.method: cell.settings.training.learning_rate for cell in cells}
    assert set(rates) == set(llama_pretraining.METHODS)
    own = {name: rate for name, rate in rates.items() if rate != rates["dense"]}
    assert own.keys() == {"galore", "apollo", "apollo_mini", "fira", "conda", "alice", "racs", "scale"}
    assert {name for name, rate in own.items() if rate == 0.01} == set(llama_pretraining.OF_001)
    sweep = learning_rates.cells("cpu", tuple(MethodRef(name) for name in llama_pretraining.PEERS))
    tried = {(cell.method, cell.settings.training.learning_rate) for cell in sweep}
    assert len(tried) == 3 * len(llama_pretraining.PEERS)
    assert {(name, rates[name]) for name in llama_pretraining.PEERS} <= tried
    assert [cell.label for cell in cells if cell.method == "ecospa"] == ["ecospa 0.5", "ecospa 0.3"]


def test_peers_are_in_every_tier_but_gpu_and_train_like_galore() -> None:
    names = tuple(MethodRef(name) for name in (*llama_pretraining.PEERS, "galore"))
    for tier, cells in {tier: llama_pretraining.cells(tier, names) for tier in llama_pretraining.SCALES}.items():
        methods = {cell.method for cell in cells}
        assert methods == ({"galore"} if tier == "gpu" else {name.name for name in names})
        assert all(cell.config["target"] is None and cell.seeds is None for cell in cells)
        assert len(cells) == len(methods) * len(llama_pretraining.SCALES[tier])


def test_the_paper_tier_has_galores_models_tokens_and_rates() -> None:
    cells = llama_pretraining.cells("paper", (MethodRef("dense"), MethodRef("galore")))
    widths = [cell.settings.model.width for cell in cells if cell.method == "dense"]
    assert widths == [512, 768, 1024, 2048]
    billions = [cell.settings.data.train_tokens / 1e9 for cell in cells if cell.method == "dense"]
    assert billions == pytest.approx([1.3, 2.6, 7.9, 13.1], abs=0.05)
    assert {cell.settings.training.learning_rate for cell in cells if cell.method == "galore"} == {0.01}
    for cell in cells:
        training, shrink = cell.settings.training, cell.settings.shrink
        assert training.batch_size % training.micro_batch_size == 0
        assert 40 <= (shrink.end_step - shrink.start_step) / shrink.interval <= 45
