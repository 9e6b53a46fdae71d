"""Merged projections: the same function in float64, no weight twice, saved apart, and no way to train or cut them."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

import ecospa
from ecospa.projections import MergedLinear
from tests.model_zoo import ZOO, build, inputs, logits, random_plan, token_by_token

TEXT = [kind for kind, sample in ZOO.items() if not sample.image]
CAUSAL = [kind for kind, sample in ZOO.items() if sample.causal]
ONE_ALREADY = [kind for kind in ZOO if kind.startswith(("gpt2", "timm"))]
GATED = [kind for kind in ZOO if kind.startswith(("llama", "mistral", "qwen"))]
SEPARATE = [kind for kind in ZOO if kind not in ONE_ALREADY]
TOLERANCE = 1e-10


def model_of(kind, cut):
    model = build(kind)
    if cut:
        ecospa.apply_plan(model, random_plan(model, 3))
    return model


def pair(kind, cut=True):
    """A model, and a merged copy of it."""
    model = model_of(kind, cut)
    merged = model_of(kind, cut)
    ecospa.merge_projections(merged)
    return model, merged


def merges(model):
    return [module.names for module in model.modules() if isinstance(module, MergedLinear)]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", ZOO)
@torch.no_grad()
def test_logits_equal(kind, cut):
    model, merged = pair(kind, cut)
    assert len(merges(merged)) == (0 if kind in ONE_ALREADY else 4 if kind in GATED else 2)
    result = logits(merged, inputs(kind))
    assert result.dtype == torch.float64
    assert (result - logits(model, inputs(kind))).abs().max() <= TOLERANCE


@pytest.mark.parametrize("kind", TEXT)
@torch.no_grad()
def test_logits_equal_under_left_padding(kind):
    model, merged = pair(kind)
    batch = inputs(kind)
    mask = torch.ones_like(batch["input_ids"])
    mask[0, :4] = 0
    difference = logits(merged, batch, attention_mask=mask) - logits(model, batch, attention_mask=mask)
    assert difference[mask.bool()].abs().max() <= TOLERANCE


@pytest.mark.parametrize(("kind", "cut"), [*((kind, True) for kind in CAUSAL), ("qwen3", False), ("mistral", False)])
@torch.no_grad()
def test_cache_equals_no_cache_and_texts_are_the_same(kind, cut):
    model, merged = pair(kind, cut)
    tokens = inputs(kind)["input_ids"]
    whole = model(tokens, use_cache=False).logits
    assert (token_by_token(merged, tokens) - whole).abs().max() <= TOLERANCE
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "attention_mask": torch.ones_like(tokens), "do_sample": False}
    expected = model.generate(tokens, **options)
    assert torch.equal(merged.generate(tokens, **options), expected)
    assert torch.equal(merged.generate(tokens, cache_implementation="static", **options), expected)


@pytest.mark.parametrize("kind", SEPARATE)
def test_no_weight_is_held_twice(kind):
    model = model_of(kind, cut=True)
    bytes_before = held_bytes(model)
    storages = [weakref.ref(p.untyped_storage()) for n, p in model.named_parameters() if "q_proj" in n or "query" in n]
    assert storages and all(storage() is not None for storage in storages)
    ecospa.merge_projections(model)
    gc.collect()
    assert all(storage() is None for storage in storages)
    assert held_bytes(model) == bytes_before
    assert parameter_count(model) == parameter_count(model_of(kind, cut=True))
    ecospa.split_projections(model)
    assert held_bytes(model) == bytes_before


def held_bytes(model):
    """Bytes of all storages of a model's tensors, those of the parts that wait in merged projections too."""
    parts = [part for module in model.modules() if isinstance(module, MergedLinear) for part in module.parts]
    tensors = [tensor for module in (model, *parts) for tensor in (*module.parameters(), *module.buffers())]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) - buffer_bytes(model)


def buffer_bytes(model):
    """Indices of attention modules that nothing was cut from are made for the merge alone, and are small."""
    return sum(buffer.untyped_storage().nbytes() for buffer in model.buffers())


def parameter_count(model):
    return ecospa.accounting.parameters(model)


@pytest.mark.parametrize("only", [("qkv",), ("gate_up",), ()])
@torch.no_grad()
def test_the_caller_chooses(only):
    model, merged = model_of("llama-gqa", cut=True), model_of("llama-gqa", cut=True)
    ecospa.merge_projections(merged, only=only)
    wanted = {"qkv": ("q_proj", "k_proj", "v_proj"), "gate_up": ("gate_proj", "up_proj")}
    assert set(merges(merged)) == {wanted[kind] for kind in only}
    assert (logits(merged, inputs("llama-gqa")) - logits(model, inputs("llama-gqa"))).abs().max() <= TOLERANCE
    ecospa.merge_projections(merged)
    assert len(merges(merged)) == 4


def test_an_unknown_choice_is_refused():
    with pytest.raises(ecospa.ConfigError, match=r"only is \('kv',\); 'kv' is unknown, choose from qkv, gate_up"):
        ecospa.merge_projections(build("bert"), only=("kv",))


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", SEPARATE)
def test_a_split_model_is_what_it_was(kind, cut):
    model = model_of(kind, cut)
    modules = {name: (id(module), type(module)) for name, module in model.named_modules()}
    parameters = [(name, id(p), p.detach().clone()) for name, p in model.named_parameters()]
    buffers = [name for name, _ in model.named_buffers()]
    ecospa.merge_projections(model)
    ecospa.split_projections(model)
    assert {name: (id(module), type(module)) for name, module in model.named_modules()} == modules
    assert [name for name, _ in model.named_buffers()] == buffers
    after = list(model.named_parameters())
    assert [(name, id(p)) for name, p in after] == [(name, number) for name, number, _ in parameters]
    assert all(
        torch.equal(p, value) and p.requires_grad for (_, p), (_, _, value) in zip(after, parameters, strict=True)
    )


def test_training_goes_on_after_an_evaluation_that_merged():
    """The optimizer still holds the parameters: losses equal those of a run without the merge, bit by bit."""

    def run(merging):
        torch.manual_seed(0)
        model = build("llama-gqa")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        batch = inputs("llama-gqa")
        losses = []
        for step in range(4):
            model.train()
            loss = logits(model, batch).square().mean()
            loss.backward()
            optimizer.step()
            if step == 1:
                ecospa.apply_plan(model, random_plan(model, 1), optimizer)
            optimizer.zero_grad()
            losses.append(loss.item())
            if merging:
                ecospa.merge_projections(model.eval())
                logits(model, batch)
                ecospa.split_projections(model)
        return losses

    assert run(True) == run(False)
    assert len(set(run(True))) == 4


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", SEPARATE)
def test_it_is_saved_apart(kind, cut, tmp_path):
    model, merged = pair(kind, cut)
    for module in merged.modules():
        vars(module).pop("forward", None)  # the zoo's own norms, which no configuration tells of
    expected = model.state_dict()
    found = merged.state_dict()
    assert set(found) == set(expected) and all(torch.equal(found[name], value) for name, value in expected.items())
    # a merged attention norms its heads in float64, transformers' own in float32 whatever it is given
    ecospa.save_pretrained(merged, tmp_path / "ours", verify=kind != "qwen3")
    loaded = ecospa.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(loaded[name].double(), value) for name, value in expected.items())
    merged.save_pretrained(tmp_path / "theirs")
    again = ecospa.from_pretrained(tmp_path / "theirs").state_dict()
    assert all(torch.equal(again[name].double(), value) for name, value in expected.items())
    assert merges(merged), "saving leaves it merged"


class Holder(nn.Module):
    """A module of somebody's own around a supported model."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner


def test_inside_a_module_of_ones_own_it_is_saved_apart(tmp_path):
    model, merged = pair("vit")
    ecospa.save_pretrained(Holder(merged), tmp_path)
    loaded = ecospa.from_pretrained(tmp_path, Holder(build("vit"))).inner
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())


@torch.no_grad()
def test_copies_and_pickles_work_and_are_split_alone():
    model, merged = pair("qwen3")
    batch = inputs("qwen3")
    for module in merged.modules():
        vars(module).pop("forward", None)  # the zoo's own float64 norm, which pickle cannot name
    expected = logits(merged, batch)
    twins = [copy.deepcopy(merged), pickle.loads(pickle.dumps(merged))]
    twins.append(torch.load(saved(merged), weights_only=False))
    for twin in twins:
        assert torch.equal(logits(twin, batch), expected)
        ecospa.split_projections(twin)
        assert set(twin.state_dict()) == set(model.state_dict())
        assert not merges(twin) and merges(merged)


def saved(model):
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return stream


@torch.no_grad()
def test_another_dtype_survives_the_split():
    _, merged = pair("llama-gqa")
    merged.to(torch.float32)
    expected = logits(merged, inputs("llama-gqa"))
    ecospa.split_projections(merged)
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(merged, inputs("llama-gqa")), expected)


def test_training_and_cutting_are_refused_with_the_way_out():
    _, merged = pair("llama-gqa")
    with pytest.raises(ecospa.UnsupportedModelError, match=r"q_proj, k_proj, v_proj are merged.*split_projections"):
        merged.train()
    merged.eval()
    with pytest.raises(ecospa.UnsupportedModelError, match=r"self_attn\.merged: projections are merged.*split_projec"):
        ecospa.plan_shrink(merged, 0.9)


def test_a_model_in_training_mode_is_refused():
    model = build("bert").train()
    with pytest.raises(ecospa.UnsupportedModelError, match=r"training mode.*call model.eval\(\) first"):
        ecospa.merge_projections(model)
    assert not merges(model)


def test_projections_that_one_product_cannot_replace_are_refused_before_anything_is_merged():
    model = build("bert")
    last = model.bert.encoder.layer[-1].attention.self
    handle = last.key.register_forward_hook(lambda *given: None)
    with pytest.raises(ecospa.UnsupportedModelError, match=r"layer\.1\.attention\.self: a hook hangs on one of query"):
        ecospa.merge_projections(model)
    handle.remove()
    last.key.to(torch.float32)
    with pytest.raises(ecospa.UnsupportedModelError, match=r"query, key, value differ in device, dtype or bias"):
        ecospa.merge_projections(model)
    assert not merges(model)


def test_a_feed_forward_layer_of_ones_own_is_refused():
    model = build("llama-gqa")
    mlp = model.model.layers[0].mlp
    mlp.__class__ = type("OtherMLP", (type(mlp),), {})
    with pytest.raises(ecospa.UnsupportedModelError, match=r"layers\.0\.mlp: .*OtherMLP has a forward of its own"):
        ecospa.merge_projections(model)


@torch.no_grad()
def test_attentions_are_returned_by_hooks_that_hung_there_before():
    model = model_of("llama-gqa", cut=True)
    model.set_attn_implementation("eager")
    expected = model(**inputs("llama-gqa"), output_attentions=True).attentions
    ecospa.merge_projections(model)
    found = model(**inputs("llama-gqa"), output_attentions=True).attentions
    assert len(found) == 2
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
