"""Frozen layers are normal: their pairs stay whole, which is said, and what they make unreachable is refused."""

import pytest
import torch
from torch import nn

import ecospa
from tests.model_zoo import VOCABULARY, ZOO

IDS = torch.randint(2, VOCABULARY, (4, 8), generator=torch.Generator().manual_seed(1))
FIELDS = {"target_scope": "blocks", "width_multiple": 4, "interval": 2}


def frozen(kind, *prefixes, target_size=0.75, **fields):
    torch.manual_seed(0)
    model = ZOO[kind].build().eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(prefixes))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    config = ecospa.EcoSpaConfig(target_size=target_size, **FIELDS | fields)
    return model, optimizer, ecospa.CoupledSparsity(model, optimizer, config)


def run(model, optimizer, sparsity, steps):
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()


def widths(model):
    return {pair.name: pair.width for pair in ecospa.coupled_pairs(model)}


@pytest.mark.parametrize("mode", ["fisher", "adam"])
@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("bert", "bert.encoder.layer.0."),
        ("gpt2", "transformer.h.0.mlp.c_proj.weight"),
        ("llama-gqa", "model.layers.1.self_attn.q_proj"),
    ],
)
def test_frozen_pairs_stay_whole_and_the_others_carry_the_target(kind, prefix, mode, caplog):
    model, optimizer, sparsity = frozen(kind, prefix, estimator=mode)
    assert "frozen and stay whole" in caplog.text
    before = widths(model)
    still = {p.name for p in ecospa.coupled_pairs(model) if any(a.parameter.startswith(prefix) for a in p.axes)}
    assert still
    run(model, optimizer, sparsity, 60)
    after = widths(model)
    assert sparsity.reached
    assert all(after[name] == before[name] for name in still)
    assert all(after[name] < before[name] for name in set(before) - still) or len(still) < 3


def test_what_frozen_pairs_make_unreachable_is_refused_with_the_smallest_value():
    with pytest.raises(ecospa.ConfigError, match="3 of 6 pairs are frozen and stay whole") as caught:
        frozen("bert", "bert.encoder.layer.0.", target_size=0.3)
    smallest = float(str(caught.value).split("reachable value is ")[1].split()[0])
    frozen("bert", "bert.encoder.layer.0.", target_size=smallest)
    with pytest.raises(ecospa.ConfigError):
        frozen("bert", "bert.encoder.layer.0.", target_size=smallest - 1e-3)


def test_a_frozen_base_is_refused_with_the_reason_and_a_one_shot_plan_is_not():
    with pytest.raises(ecospa.ConfigError, match=r"all 6 pairs are frozen.*adapters on a frozen base"):
        frozen("gpt2", "transformer.h.")
    model = ZOO["gpt2"].build().requires_grad_(False)
    assert ecospa.plan_shrink(model, 0.6, target_scope="blocks", width_multiple=2).kept


def test_a_twin_of_a_frozen_pair_stays_as_wide():
    rule = ecospa.WidthRule(4, 4, 4, tied=True)
    model, optimizer, sparsity = frozen("bert", "bert.encoder.layer.0.attention.self.query", width_multiple=rule)
    run(model, optimizer, sparsity, 60)
    after = widths(model)
    assert sparsity.reached
    first = next(name.removesuffix(".qk") for name in after if name.endswith(".qk"))
    assert after[f"{first}.qk"] == after[f"{first}.vo"] == 8


def test_a_teacher_in_the_same_module_stays_whole():
    torch.manual_seed(0)
    both = nn.ModuleDict({"student": ZOO["gpt2"].build(), "teacher": ZOO["gpt2"].build().requires_grad_(False)}).eval()
    optimizer = torch.optim.AdamW(both["student"].parameters(), lr=1e-3)
    config = ecospa.EcoSpaConfig(target_size=0.8, **FIELDS)
    sparsity = ecospa.CoupledSparsity(both, optimizer, config)
    run(both["student"], optimizer, sparsity, 60)
    assert sparsity.reached and all(width in (8, 128) for name, width in widths(both).items() if "teacher" in name)


def test_freezing_and_thawing_during_training():
    model, optimizer, sparsity = frozen("gpt2", "transformer.h.0.mlp", target_size=0.7)
    optimizer.add_param_group({"params": list(model.transformer.h[0].mlp.parameters())})
    run(model, optimizer, sparsity, 4)
    before = widths(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("transformer.h.1.mlp" not in name)
    run(model, optimizer, sparsity, 80)
    after = widths(model)
    assert sparsity.reached and after["transformer.h.1.mlp.ffn"] == before["transformer.h.1.mlp.ffn"]
    assert after["transformer.h.0.mlp.ffn"] < before["transformer.h.0.mlp.ffn"]


def test_a_layer_that_a_step_does_not_use_has_a_gradient_of_zero():
    model, _, sparsity = frozen("gpt2", interval=100)
    model(input_ids=IDS, labels=IDS).loss.backward()
    for parameter in model.transformer.h[1].parameters():
        parameter.grad = None
    sparsity.after_backward()
    importances = sparsity.estimator.importances()
    assert all((value == 0) == name.startswith("transformer.h.1.") for name, value in importances.items())
    model.zero_grad()
    with pytest.raises(RuntimeError, match="no coupled matrix has a gradient"):
        sparsity.after_backward()
