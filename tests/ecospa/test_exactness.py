"""Blocks with parts of one's own: exact ones are cut, the others are refused by name, stock ones are never run."""

import copy
import functools
import types

import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.llama import modeling_llama

import ecospa
from ecospa import exactness
from ecospa.families import family_of, transformer_blocks
from ecospa.stock import foreign_parts
from tests.model_zoo import ZOO, inputs, logits

WHERE = {
    "gpt2": ("transformer.h", "mlp", "act"),
    "llama-gqa": ("model.layers", "mlp", "act_fn"),
    "vit": ("vit.layers", "mlp", "activation_fn"),
    "bert": ("bert.encoder.layer", "intermediate", "intermediate_act_fn"),
    "timm-vit": ("blocks", "mlp", "act"),
}


def whole(kind="llama-gqa"):
    return ZOO[kind].build().eval()


def with_activation(activation, kind="gpt2"):
    model = whole(kind)
    layers, mlp, act = WHERE[kind]
    for layer in model.get_submodule(layers):
        delattr(layer.get_submodule(mlp), act)
        setattr(layer.get_submodule(mlp), act, copy.deepcopy(activation))
    return model


def with_mlp(change, kind="llama-gqa"):
    model = whole(kind)
    for layer in model.get_submodule(WHERE[kind][0]):
        change(layer.mlp)
    return model


class Elementwise(nn.Module):
    def forward(self, x):
        return torch.cos(x)


class Winners(nn.Module):
    """Keeps the largest quarter of the units."""

    def forward(self, x):
        return torch.where(x >= x.topk(x.shape[-1] // 4, dim=-1).values[..., -1:], x, 0)


class Snake(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(units))

    def forward(self, x):
        return x + torch.sin(self.alpha * x).square() / self.alpha


class RunningPeak(nn.Module):
    """Scales by the largest value that it saw in training: the first evaluation shows nothing."""

    def __init__(self):
        super().__init__()
        self.register_buffer("peak", torch.ones(()))

    def forward(self, x):
        if self.training:
            self.peak.copy_(x.detach().square().mean())
        return torch.relu(x) / self.peak


class AlwaysDrops(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


class SubNorm(modeling_llama.LlamaMLP):
    def forward(self, x):
        hidden = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(nn.functional.rms_norm(hidden, hidden.shape[-1:]))


def fused(self, x):
    return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


def centred(self, x):
    hidden = nn.functional.silu(self.gate_proj(x)) * self.up_proj(x)
    return self.down_proj(hidden - hidden.mean(-1, keepdim=True))


def patched(function):
    def change(mlp):
        mlp.forward = types.MethodType(function, mlp)

    return with_mlp(change)


def subclassed(kind):
    def change(mlp):
        mlp.__class__ = kind

    return with_mlp(change)


class Same(modeling_llama.LlamaMLP):
    pass


def bound_to_the_original(mlp):
    mlp.forward = lambda x: fused(mlp, x)


def with_hook(add, kind="llama-gqa"):
    return with_mlp(add, kind)


def own_attention(exact):
    def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
        scaling = scaling if exact else query.shape[-1] ** -0.5
        key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], 1) for states in (key, value))
        return ((query @ key.mT) * scaling).softmax(-1).matmul(value).transpose(1, 2), None

    AttentionInterface.register("mine", attention)
    model = whole("gpt2")
    model.set_attn_implementation("mine")
    return model


def scaled_after():
    model = whole("gpt2")
    for layer in model.transformer.h:
        layer.mlp.dropout = Snake(32)  # along the residual width, which is not cut
    return model


ACCEPTED = {
    "patched instance": lambda: patched(fused),
    "subclass": lambda: subclassed(Same),
    "partial on the instance": lambda: with_mlp(lambda m: setattr(m, "forward", functools.partial(fused, m))),
    "activation that is not zero at zero": lambda: with_activation(Elementwise()),
    "one slope for all": lambda: with_activation(nn.PReLU(), "vit"),
    "plain function": lambda: with_activation(torch.cos, "bert"),
    "activation in timm": lambda: with_activation(Elementwise(), "timm-vit"),
    "parameters along the residual width": scaled_after,
    "observer": lambda: with_hook(lambda m: m.gate_proj.register_forward_hook(lambda *given: None)),
    "attention function": lambda: own_attention(exact=True),
}  # fmt: skip

REFUSED = {
    "norm inside": (lambda: subclassed(SubNorm), r"layers\.0\.mlp: .*SubNorm is a module of your own"),
    "patched instance": (lambda: patched(centred), r"layers\.0\.mlp: its forward was replaced on the instance"),
    "closure": (lambda: with_mlp(bound_to_the_original), r"layers\.0\.mlp: its forward was replaced"),
    "softmax": (lambda: with_activation(nn.Softmax(-1)), r"h\.0\.mlp\.act: .*Softmax is a module of your own"),
    "softmax in timm": (lambda: with_activation(nn.Softmax(-1), "timm-vit"), r"blocks\.0\.mlp\.act: .*Softmax"),
    "function that mixes": (
        lambda: with_activation(functools.partial(torch.softmax, dim=-1), "bert"), r"layer\.0\.intermediate: it calls"),
    "norm as activation": (lambda: with_activation(nn.LayerNorm(128)), r"mlp\.act: .*LayerNorm is a module of"),
    "winners": (lambda: with_activation(Winners()), r"mlp\.act: .*Winners"),
    "one slope per unit": (lambda: with_activation(nn.PReLU(40), "vit"), r"mlp\.activation_fn: .*PReLU"),
    "parameters per unit": (lambda: with_activation(Snake(128)), r"mlp\.act: .*Snake.*does not run"),
    "state": (lambda: with_activation(RunningPeak()), r"mlp\.act: .*RunningPeak.*in training its outputs differ"),
    "random": (lambda: with_activation(AlwaysDrops()), r"mlp\.act: .*AlwaysDrops.*draws random numbers"),
    "hook that changes": (
        lambda: with_hook(lambda m: m.gate_proj.register_forward_hook(lambda _, a, out: out.softmax(-1))),
        r"mlp\.gate_proj: a hook of your own hangs on it"),
    "hook before": (
        lambda: with_hook(lambda m: m.down_proj.register_forward_pre_hook(lambda _, a: a[0] - a[0].mean(-1, True))),
        r"mlp\.down_proj: a hook of your own"),
    "hook on gradients": (
        lambda: with_hook(lambda m: m.act_fn.register_full_backward_hook(lambda _, g, out: (g[0] - g[0].mean(),))),
        r"mlp\.act_fn: a hook of your own.*gradients differ"),
    "attention function": (lambda: own_attention(exact=False), r"h\.0: its attention function 'mine' is your own"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_exact_part_of_ones_own_is_cut(name):
    model = ACCEPTED[name]()
    before = [parameter.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    plan = ecospa.plan_shrink(model, 0.7, target_scope="blocks", width_multiple=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    block = next(iter(transformer_blocks(model).values()))
    assert foreign_parts(block, family_of(block).stock)
    ecospa.apply_plan(model, plan)
    assert sum(p.numel() for p in model.parameters()) == plan.parameters_after


@pytest.mark.parametrize("name", REFUSED)
def test_another_function_is_refused_by_name(name):
    make, message = REFUSED[name]
    model = make()
    shapes = [parameter.shape for parameter in model.parameters()]
    with pytest.raises(ecospa.UnsupportedModelError, match=message) as caught:
        ecospa.plan_shrink(model, 0.7, target_scope="blocks", width_multiple=2)
    assert "Way out: use the stock part" in str(caught.value)
    pair = ecospa.coupled_pairs(model)[0]
    kept = {pair.name: ecospa.pairs.unit_positions(pair, torch.arange(2).repeat(pair.groups, 1))}
    with pytest.raises(ecospa.UnsupportedModelError, match=message):
        ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept))
    assert [parameter.shape for parameter in model.parameters()] == shapes


def test_attaching_refuses_as_well():
    model = subclassed(SubNorm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ecospa.UnsupportedModelError, match="SubNorm"):
        ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(width_multiple=2, interval=1))


def interleaved(q, k, cos, sin, unsqueeze_dim=1):
    """Rotary partners that lie side by side, which are others than those that are cut together."""
    turned = [torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2) for x in (q, k)]
    return tuple(x * cos.unsqueeze(1) + t * sin.unsqueeze(1) for x, t in zip((q, k), turned, strict=True))


def own_eager(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    return (query @ key.mT).softmax(-1).matmul(value).transpose(1, 2) / query.shape[-1], None


@pytest.mark.parametrize(
    ("kind", "holder", "name", "function", "message"),
    [
        ("llama-gqa", modeling_llama.LlamaMLP, "forward", centred, "the forward of .*LlamaMLP was replaced"),
        ("llama-gqa", modeling_llama, "apply_rotary_pos_emb", interleaved, "apply_rotary_pos_emb was replaced"),
        ("gpt2", modeling_gpt2, "eager_attention_forward", own_eager, "eager_attention_forward was replaced"),
    ],
)
def test_a_patched_library_is_seen(kind, holder, name, function, message, monkeypatch):
    model = whole(kind)
    model.set_attn_implementation("eager")
    ecospa.plan_shrink(model, 0.7, target_scope="blocks", width_multiple=2)
    monkeypatch.setattr(holder, name, functools.wraps(getattr(holder, name))(function))
    with pytest.raises(ecospa.UnsupportedModelError, match=message):
        ecospa.plan_shrink(model, 0.7, target_scope="blocks", width_multiple=2)


def test_a_class_that_is_patched_with_the_same_function_is_cut(monkeypatch):
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", fused)
    model = whole()
    ecospa.apply_plan(model, ecospa.plan_shrink(model, 0.7, target_scope="blocks", width_multiple=2))


@pytest.mark.parametrize("kind", ZOO)
def test_a_stock_block_is_passed_by_what_it_is(kind, monkeypatch):
    model = whole(kind)
    logits(model.float(), {name: x if x.dtype == torch.int64 else x.float() for name, x in inputs(kind).items()})
    monkeypatch.setattr(exactness, "_compare", None)
    plan = ecospa.plan_shrink(model, 0.8, target_scope="blocks", width_multiple=2)
    ecospa.apply_plan(model, plan)
    for block in transformer_blocks(model).values():
        assert foreign_parts(block, family_of(block).stock) == {}
        assert block not in exactness._exact


def counted(monkeypatch):
    blocks, original = [], exactness.check_block
    monkeypatch.setattr(exactness, "check_block", lambda name, *given: blocks.append(name) or original(name, *given))
    return blocks


def test_blocks_made_alike_are_tried_once_and_again_when_something_changes(monkeypatch):
    blocks = counted(monkeypatch)
    model = patched(fused)
    for _ in range(2):
        ecospa.apply_plan(model, ecospa.plan_shrink(model, 0.9, target_scope="blocks", width_multiple=2))
    assert blocks == ["model.layers.0"]
    mlp = model.model.layers[1].mlp
    mlp.forward = types.MethodType(centred, mlp)
    with pytest.raises(ecospa.UnsupportedModelError, match=r"layers\.1\.mlp: its forward was replaced"):
        ecospa.plan_shrink(model, 0.9, target_scope="blocks", width_multiple=2)
    assert blocks == ["model.layers.0", "model.layers.1"]


def test_another_function_of_the_same_code_is_tried_again(monkeypatch):
    def change(strength):
        def forward(self, x):
            hidden = nn.functional.silu(self.gate_proj(x)) * self.up_proj(x)
            return self.down_proj(hidden - strength * hidden.mean(-1, keepdim=True))

        return forward

    model = patched(change(0.0))
    ecospa.plan_shrink(model, 0.9, target_scope="blocks", width_multiple=2)
    for layer in model.model.layers:
        layer.mlp.forward = types.MethodType(change(1.0), layer.mlp)
    with pytest.raises(ecospa.UnsupportedModelError, match="its forward was replaced"):
        ecospa.plan_shrink(model, 0.9, target_scope="blocks", width_multiple=2)


def test_without_weights_there_is_nothing_to_try():
    with torch.device("meta"):
        model = ZOO["llama-gqa"].build()
    model.model.layers[0].mlp.__class__ = SubNorm
    pair = ecospa.coupled_pairs(model)[2]
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, {pair.name: torch.arange(8)[None]}))
    assert model.model.layers[0].mlp.down_proj.weight.shape == (32, 8)


def test_a_forward_that_is_patched_after_the_cut_does_not_keep_it_from_being_saved(tmp_path):
    model = whole()
    ecospa.apply_plan(model, ecospa.plan_shrink(model, 0.7, target_scope="blocks", width_multiple=2))
    expected = logits(model, inputs("llama-gqa"))
    for layer in model.model.layers:
        layer.mlp.forward = types.MethodType(fused, layer.mlp)
    ecospa.save_pretrained(model, tmp_path / "saved")
    assert torch.equal(logits(ecospa.from_pretrained(tmp_path / "saved"), inputs("llama-gqa")), expected)
