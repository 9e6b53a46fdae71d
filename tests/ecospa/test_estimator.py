"""The estimator against direct sums of squared gradients, fused weights and broken gradients included."""

import pytest
import torch

import ecospa
from ecospa.importance import empirical_fisher, pair_importance
from tests.model_zoo import ZOO, build, inputs, logits


def backward(model, kind, seed):
    model.zero_grad()
    logits(model, inputs(kind, seed)).square().mean().backward()


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "qwen3", "bert", "timm-deit-distilled"])
def test_importances_equal_the_definition(kind):
    model = build(kind)
    pairs = ecospa.coupled_pairs(model)
    estimator = ecospa.CoupledEstimator(model, pairs)
    expected = {pair.name: 0.0 for pair in pairs}
    for seed in range(3):
        backward(model, kind, seed)
        estimator.update()
        for pair in pairs:
            grads = []
            for axis in pair.axes:
                grad = model.get_parameter(axis.parameter).grad
                if grad.ndim > 1:
                    grads.append(grad.index_select(axis.axis, axis.index.flatten()))
            expected[pair.name] += float(pair_importance(grads)) / 3
    assert estimator.importances() == pytest.approx(expected, rel=1e-10)
    assert len(estimator.matrix_importances()) == sum(
        3 if p.kind == "ffn" and len(p.left) > 1 and "gate" in p.left[0].parameter else 2 for p in pairs
    )


def test_pure_functions():
    grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert float(empirical_fisher(grad)) == 7.5
    assert float(pair_importance([grad, torch.ones(5)])) == 4.25
    with pytest.raises(ValueError, match="grads is empty"):
        pair_importance([])
    scores = ecospa.importance.index_scores(torch.tensor([[3.0, 0.0], [4.0, 1.0]]), torch.tensor([[2.0], [7.0]]))
    assert scores.tolist() == [10.0, 7.0]


def test_adam_mode_reads_the_second_moment():
    model = build("gpt2")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pairs = ecospa.coupled_pairs(model)
    estimator = ecospa.CoupledEstimator(model, pairs, mode="adam", optimizer=optimizer)
    backward(model, "gpt2", 0)
    optimizer.step()
    estimator.update()
    first = ecospa.CoupledEstimator(model, pairs)
    first.update()
    # after one step the second moment is (1 - beta2) g^2
    for name, value in estimator.importances().items():
        assert value == pytest.approx(1e-3 * first.importances()[name], rel=1e-6)
    with pytest.raises(ecospa.ConfigError, match="estimator is 'adam'"):
        ecospa.CoupledEstimator(model, pairs, mode="adam")
    sgd = ecospa.CoupledEstimator(model, pairs, "adam", torch.optim.SGD(model.parameters(), lr=1e-3))
    with pytest.raises(RuntimeError, match="exp_avg_sq"):
        sgd.importances()


def test_state_continues_bitwise():
    model = build("gpt2")
    pairs = ecospa.coupled_pairs(model)
    one, two = ecospa.CoupledEstimator(model, pairs), ecospa.CoupledEstimator(model, pairs)
    backward(model, "gpt2", 0)
    one.update()
    two.load_state_dict(one.state_dict())
    backward(model, "gpt2", 1)
    one.update()
    two.update()
    assert one.importances() == two.importances()


def test_missing_gradients_and_empty_windows_are_told():
    model = build("gpt2")
    estimator = ecospa.CoupledEstimator(model, ecospa.coupled_pairs(model))
    with pytest.raises(RuntimeError, match="no gradient was seen"):
        estimator.importances()
    with pytest.raises(RuntimeError, match="has no gradient"):
        estimator.update()


def test_an_event_without_gradients_is_told_and_training_goes_on():
    """Loss scaling can skip every step between two events."""
    model = ZOO["gpt2"].build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    config = ecospa.EcoSpaConfig(interval=1, top_k=1.0, target_size=0.6, target_scope="blocks", width_multiple=2)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    with pytest.warns(ecospa.SkippedEventWarning, match="no gradient was seen"):
        sparsity.after_step()
    assert len(sparsity.history) == 1
    for step in range(3):
        backward(model, "gpt2", step)
        sparsity.after_backward()
        sparsity.after_step()
    assert len(sparsity.history) > 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_is_cut_on_garbage(bad):
    model = ZOO["gpt2"].build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    config = ecospa.EcoSpaConfig(
        interval=2, importance_threshold=0.7, target_size=0.6, target_scope="blocks", width_multiple=2
    )
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    before = sum(p.numel() for p in model.parameters())
    for step in range(4):
        backward(model, "gpt2", step)
        if step == 0:
            model.transformer.h[1].mlp.c_fc.weight.grad[0, 0] = bad
        sparsity.after_backward()
        if step == 1:
            with pytest.warns(ecospa.SkippedEventWarning, match=r"h\.1\.mlp\.ffn"):
                sparsity.after_step()
            assert sum(p.numel() for p in model.parameters()) == before
        else:
            sparsity.after_step()
    assert sum(p.numel() for p in model.parameters()) < before  # the next event has clean gradients
