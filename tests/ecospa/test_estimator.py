"""The estimator against direct sums of squared gradients, fused weights and broken gradients included."""

import json
import math
import warnings

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
    with pytest.raises(RuntimeError, match="no coupled matrix has a gradient"):
        estimator.update()


def test_events_that_are_skipped_in_a_row_are_told_once_for_each_reason():
    model = ZOO["gpt2"].build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    config = ecospa.EcoSpaConfig(interval=1, top_k=1.0, target_size=0.6, target_scope="blocks", width_multiple=2)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    told = []
    for step, given in enumerate(("nothing", "nothing", "nan", "nan", "nothing", "good", "nothing")):
        optimizer.zero_grad()
        if given != "nothing":
            backward(model, "gpt2", step)
            if given == "nan":
                model.transformer.h[1].mlp.c_fc.weight.grad[0, 0] = float("nan")
            sparsity.after_backward()
            optimizer.zero_grad()
        optimizer.step()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sparsity.after_step()
        told.append([word for one in caught for word in ("no gradient", "NaN") if word in str(one.message)])
    assert told == [["no gradient"], [], ["NaN"], [], ["no gradient"], [], ["no gradient"]]
    assert len(sparsity.history) == 2


def test_an_event_without_gradients_is_told_and_training_goes_on():
    """Loss scaling can skip every step between two events."""
    model = ZOO["gpt2"].build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    config = ecospa.EcoSpaConfig(interval=1, top_k=1.0, target_size=0.6, target_scope="blocks", width_multiple=2)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    optimizer.step()
    with pytest.warns(ecospa.SkippedEventWarning, match="no gradient was seen"):
        sparsity.after_step()
    assert len(sparsity.history) == 1
    for step in range(3):
        backward(model, "gpt2", step)
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
    assert len(sparsity.history) > 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_is_cut_on_garbage(bad):
    model = ZOO["gpt2"].build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)  # a step that is not a number would spoil the weights
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
        optimizer.zero_grad()
        optimizer.step()
        if step == 1:
            with pytest.warns(ecospa.SkippedEventWarning, match=r"h\.1\.mlp\.ffn"):
                sparsity.after_step()
            assert sum(p.numel() for p in model.parameters()) == before
        else:
            sparsity.after_step()
    assert sum(p.numel() for p in model.parameters()) < before  # the next event has clean gradients


def filled(model, values):
    """A random gradient for every parameter, times the value of the first name that its own holds."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        factor = next((value for part, value in values.items() if part in name), 1.0)
        parameter.grad = (noise * factor).to(parameter.dtype)


def roots(model, pairs):
    """Root of every pair's importance: norms of numbers near one, so that no square leaves float64."""
    found = {}
    for pair in pairs:
        norms = []
        for axis in pair.axes:
            grad = model.get_parameter(axis.parameter).grad.double()
            values = grad.index_select(axis.axis, axis.index.flatten())
            largest = float(values.abs().max())
            norms.append(largest * float((values / largest).square().mean().sqrt()))
        found[pair.name] = math.hypot(*norms) / math.sqrt(len(norms))
    return found


@pytest.mark.parametrize(
    ("dtype", "one", "other"),
    [
        (torch.float32, 1e25, 3e25),
        (torch.float32, 1e-30, 3e-30),
        (torch.float32, 1e25, 1e-30),
        (torch.float32, 1e-41, 1e-42),  # these are denormal themselves
        (torch.bfloat16, 1e25, 1e-30),
        (torch.float16, 1.5e4, 1e4),  # the norm of a row leaves float16
        (torch.float16, 1e-6, 3e-6),
        (torch.float64, 1e200, 3e200),
        (torch.float64, 1e-200, 3e-200),
        (torch.float64, 1e-310, 3e-310),
        (torch.float64, 1e300, 1e160),
    ],
    ids=str,
)
def test_squares_that_leave_their_format_rank_pairs_all_the_same(dtype, one, other):
    model = ZOO["llama-gqa"].build().to(dtype)
    pairs = ecospa.coupled_pairs(model)
    estimator = ecospa.CoupledEstimator(model, pairs)
    filled(model, {"layers.0.": one, "layers.1.self_attn": other, "layers.1.mlp": other / 2})
    estimator.update()
    expected, found = roots(model, pairs), estimator.importances()
    assert all(0 < value < math.inf for value in found.values())
    assert sorted(found, key=found.__getitem__) == sorted(expected, key=expected.__getitem__)
    unit = expected[pairs[0].name] / math.sqrt(found[pairs[0].name])
    for name, value in found.items():
        assert math.sqrt(value) * unit == pytest.approx(expected[name], rel=1e-2 if dtype == torch.bfloat16 else 1e-3)


def test_a_window_may_hold_steps_of_every_scale():
    """Later steps may be larger than squares can be, or smaller; the window is the same when it is stored between."""
    model = ZOO["llama-gqa"].build().double()
    pairs = ecospa.coupled_pairs(model)
    once, stored = (ecospa.CoupledEstimator(model, pairs) for _ in range(2))
    for scale in (1.0, 1e170, 1e-170, 1e170):
        filled(model, {"layers.0.": scale, "layers.1.": 2 * scale})
        once.update()
        stored.update()
        state = stored.state_dict()
        stored = ecospa.CoupledEstimator(model, pairs)
        stored.load_state_dict(json.loads(json.dumps(state)))
    assert once.importances() == stored.importances()
    single = ecospa.CoupledEstimator(model, pairs)
    single.update()  # two steps out of four are this one, and the others are nothing beside it
    expected = {name: value / 2 for name, value in single.importances().items()}
    assert once.importances() == pytest.approx(expected, rel=1e-9)
    once.reset()
    filled(model, {})
    once.update()
    single = ecospa.CoupledEstimator(model, pairs)
    single.update()
    assert once.importances() == single.importances()  # a new window has its own unit


def test_only_what_leaves_its_format_is_summed_again():
    """One matrix out of range changes no bit of the others."""
    model = ZOO["gpt2"].build()
    pairs = ecospa.coupled_pairs(model)
    plain, mixed = (ecospa.CoupledEstimator(model, pairs) for _ in range(2))
    filled(model, {})
    plain.update()
    filled(model, {"h.1.mlp.c_fc.weight": 1e25})
    mixed.update()
    expected, found = plain.matrix_importances(), mixed.matrix_importances()
    different = [key for key in expected if expected[key] != found[key]]
    assert [name for _, _, name in different] == ["transformer.h.1.mlp.c_fc.weight"]
    assert found[different[0]] == pytest.approx(1e50 * expected[different[0]], rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_what_is_not_finite_stays_so_beside_gradients_out_of_range(dtype, bad):
    model = ZOO["gpt2"].build().to(dtype)
    pairs = ecospa.coupled_pairs(model)
    estimator = ecospa.CoupledEstimator(model, pairs)
    filled(model, {"h.0.": 1e200 if dtype == torch.float64 else 1e30})
    model.get_parameter("transformer.h.1.mlp.c_fc.weight").grad[0, 0] = bad
    estimator.update()
    broken = [name for name, value in estimator.importances().items() if not math.isfinite(value)]
    assert broken == ["transformer.h.1.mlp.ffn"]


def test_a_sparse_gradient_is_told():
    model = ZOO["gpt2"].build()
    estimator = ecospa.CoupledEstimator(model, ecospa.coupled_pairs(model))
    filled(model, {})
    weight = model.get_parameter("transformer.h.0.mlp.c_fc.weight")
    weight.grad = weight.grad.to_sparse()
    with pytest.raises(RuntimeError, match=r"h\.0\.mlp\.c_fc\.weight is sparse"):
        estimator.update()


def run_with(values, top_k):
    """A run whose only event comes after one step with given gradients: its widths, and what was warned of."""
    model = ZOO["gpt2"].build()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    config = ecospa.EcoSpaConfig(
        interval=1, top_k=top_k, importance_threshold=0.5, target_size=0.3, target_scope="blocks", width_multiple=2
    )
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    filled(model, values)
    sparsity.after_backward()
    optimizer.zero_grad()
    optimizer.step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sparsity.after_step()
    before, after = sparsity.history[0].widths, sparsity.history[-1].widths
    return [name for name in before if before[name] != after[name]], [warning.category for warning in caught]


def test_importances_of_zero_are_not_cut_by_their_order_without_a_word():
    assert run_with({"": 0.0}, 0.3) == ([], [ecospa.SkippedEventWarning])
    cut, told = run_with({"h.0.": 0.0}, 0.3)  # two of six pairs go, and three are zero
    assert told == [ecospa.TiedImportanceWarning] and len(cut) == 2 and all(".h.0." in name for name in cut)
    cut, told = run_with({"h.0.attn.c_proj": 0.0, "h.0.attn.c_attn": 0.0}, 0.3)  # two of six: no choice among them
    assert told == [] and all(".h.0.attn" in name for name in cut)
    assert run_with({"": 1e-30}, 0.3)[1] == [] and run_with({"": 1e25}, 0.3)[1] == []
    cut, told = run_with({"h.0.": 1e-30, "h.1.mlp": 1e-31}, 0.16)  # one of six
    assert told == [] and cut == ["transformer.h.1.mlp.ffn"]
    cut, told = run_with({"": 0.0}, 1.0)  # all are cut: nothing has to be ranked
    assert told == [] and len(cut) == 6
