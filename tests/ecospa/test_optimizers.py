"""One optimizer or several: a list is accepted everywhere, and every parameter has one optimizer."""

import pytest
import torch

import ecospa
from ecospa.optimizers import all_of
from tests.model_zoo import build, inputs, logits, random_plan

CONFIG = ecospa.EcoSpaConfig(
    pace="curve", interval=1, end_step=3, target_size=0.6, target_scope="blocks", width_multiple=4
)


def shared(model, matrices):
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ("layer" in name or ".h." in name)]
    rest = [p for p in model.parameters() if all(p is not one for one in inner)]
    return [matrices(inner, lr=1e-3), torch.optim.AdamW(rest, lr=1e-3)]


def train(model, optimizers, sparsity, kind, steps):
    for step in range(steps):
        logits(model, inputs(kind, seed=step)).square().mean().backward()
        sparsity.after_backward()
        for one in optimizers:
            one.step()
        sparsity.after_step()
        for one in optimizers:
            one.zero_grad()


@pytest.mark.filterwarnings("ignore::ecospa.InexactOptimizerWarning")
@pytest.mark.parametrize(("kind", "matrices"), [("bert", torch.optim.Muon), ("gpt2", torch.optim.SGD)])
def test_matrices_and_the_rest_have_an_optimizer_each(kind, matrices):
    model = build(kind)
    optimizers = shared(model, matrices)
    sparsity = ecospa.CoupledSparsity(model, optimizers, CONFIG)
    train(model, optimizers, sparsity, kind, 5)
    assert sparsity.finished and len(sparsity.history) > 1
    for one in optimizers:
        for parameter, state in one.state.items():
            assert all(v.shape in ((), parameter.shape) for v in state.values() if isinstance(v, torch.Tensor))


def test_one_of_two_alone_is_refused_by_name():
    model = build("bert")
    with pytest.raises(ecospa.OptimizerStateError, match=r"bias: the AdamW does not hold|bias: the SGD does not hold"):
        ecospa.CoupledSparsity(model, shared(model, torch.optim.SGD)[0], CONFIG)


def test_a_parameter_of_two_optimizers_is_refused_by_name():
    model = build("gpt2")
    both = [torch.optim.AdamW(model.parameters()), torch.optim.SGD([model.transformer.h[0].mlp.c_fc.weight])]
    said = r"h\.0\.mlp\.c_fc\.weight: both the AdamW and the SGD hold"
    with pytest.raises(ecospa.OptimizerStateError, match=said):
        ecospa.CoupledSparsity(model, both, CONFIG)
    with pytest.raises(ecospa.OptimizerStateError, match=said):
        ecospa.apply_plan(model, random_plan(model, 3), both)
    with pytest.raises(ecospa.OptimizerStateError, match="both the AdamW and the AdamW hold"):
        ecospa.CoupledSparsity(model, [both[0], both[0]], CONFIG)


@pytest.mark.parametrize(
    ("given", "message"),
    [([], "empty list"), ((), "empty list"), ([[1]], r"optimizer\[0\] is a list"), ("adamw", "optimizer is a str")],
)
def test_what_is_no_optimizer_is_told(given, message):
    with pytest.raises(ecospa.ConfigError, match=message):
        ecospa.CoupledSparsity(build("gpt2"), given, CONFIG)


def test_accelerate_is_seen_through_and_other_wrappers_are_not():
    from accelerate import Accelerator

    plain = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    assert all_of([Accelerator(cpu=True).prepare(plain)]) == (plain,)

    class Slow(torch.optim.Optimizer):
        def __init__(self, inner):
            self.optimizer = inner
            super().__init__(inner.param_groups[0]["params"], {})

    slow = Slow(plain)
    assert all_of(slow) == (slow,)


def test_estimator_reads_the_moment_from_whichever_holds_it():
    model = build("gpt2")
    optimizers = shared(model, torch.optim.Adam)
    fields = {"width_multiple": 4, "interval": 2, "estimator": "adam", "target_size": 0.9}
    sparsity = ecospa.CoupledSparsity(model, optimizers, ecospa.EcoSpaConfig(**fields))
    train(model, optimizers, sparsity, "gpt2", 3)
    assert len(sparsity.history) > 1


def test_memory_budget_counts_the_state_of_all():
    model = build("gpt2")
    optimizers = shared(model, torch.optim.SGD)
    held = [sum(p.numel() * p.element_size() for g in one.param_groups for p in g["params"]) for one in optimizers]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    budget = ecospa.MemoryBudget(10**9, model, optimizers)
    assert budget._fixed() == weights + 0 * held[0] + 2 * held[1]
