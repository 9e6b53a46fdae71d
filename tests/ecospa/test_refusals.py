"""Refusals of what cannot be done right, with a message that names the part and the way out."""

import inspect

import jaxtyping
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import ecospa
from tests.model_zoo import ZOO, build, random_plan

HAS_ATTENTION_LAYERS = "attn_layer" in inspect.signature(VisionTransformer.__init__).parameters


def transformers_model(name, **config):
    import transformers

    kind = getattr(transformers, name)
    return kind(kind.config_class(**config))


SMALL = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 50, "n_positions": 16}
CROSS = {"add_cross_attention": True}
GPT_NEO = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 50, "attention_types": [[["global"], 2]]}
BERT = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4, "vocab_size": 50}


FLAGS = {"num_key_value_heads": 2, "qk_layernorm": True, "use_qk_norm": True}


def torch_encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 2)


def timm_model(**options):
    import timm

    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 8, "patch_size": 4, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **(sizes | options))


def lora_model():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(ZOO["gpt2"].build(), LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True))


def quantised_model():
    model = ZOO["vit"].build()
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def parametrised_model():
    model = ZOO["vit"].build()
    nn.utils.parametrizations.weight_norm(model.get_submodule(ecospa.coupled_pairs(model)[2].module).fc1)
    return model


def replaced_forward():
    model = ZOO["gpt2"].build()
    attention = model.transformer.h[1].attn
    attention.forward = attention.forward
    return model


def subclassed_attention():
    model = ZOO["gpt2"].build()
    attention = model.transformer.h[0].attn
    attention.__class__ = type("MyAttention", (type(attention),), {"__module__": "mine"})
    return model


def shared_weight():
    model = ZOO["gpt2"].build()
    model.transformer.h[1].mlp.c_fc.weight = model.transformer.h[0].mlp.c_fc.weight
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "no block of a known family"),
        (torch_encoder, r"layers\.0: torch.*TransformerEncoderLayer"),
        (lambda: transformers_model("GPTNeoForCausalLM", **GPT_NEO), "GPTNeoBlock cannot be cut: its attention is"),
        (lambda: transformers_model("AlbertModel", **BERT), "AlbertLayer cannot be cut: its one layer"),
        (lambda: transformers_model("DebertaV2Model", **BERT), "DebertaV2Layer cannot be cut: its relative positions"),
        (lambda: transformers_model("StableLmModel", **BERT, **FLAGS), r"qk_layernorm: a LayerNorm of its own"),
        (lambda: transformers_model("CohereModel", **BERT, **FLAGS), r"use_qk_norm: a LayerNorm of its own"),
        (lambda: transformers_model("GPT2LMHeadModel", **SMALL, **CROSS), r"h\.0\.crossattention: cross attention"),
        (lambda: transformers_model("BertLMHeadModel", **BERT, is_decoder=True, **CROSS), "cross attention"),
        (lambda: timm_model(scale_attn_norm=True), r"attn\.norm: a norm over the whole attention width"),
        (lambda: timm_model(scale_mlp_norm=True), r"blocks\.0\.mlp: Mlp with a norm"),
        pytest.param(
            lambda: timm_model(attn_layer="diff"),
            r"blocks\.0\.attn: .*DiffAttention",
            marks=pytest.mark.skipif(not HAS_ATTENTION_LAYERS, reason="this timm has one attention only"),
        ),
        (lora_model, r"c_attn: it is a peft"),
        (quantised_model, "not a plain Linear"),
        (parametrised_model, "not a plain Linear"),
        (replaced_forward, "its forward was replaced"),
        (subclassed_attention, "forward of its own"),
        (shared_weight, "one weight under several names"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_unsupported_models_name_module_and_way_out(make, message):
    with pytest.raises(ecospa.UnsupportedModelError, match=message) as caught:
        ecospa.coupled_pairs(make())
    assert "Way out" in str(caught.value) and "GPT-2 (transformers)" in str(caught.value)


def test_gated_timm_attention_is_refused():
    model = timm_model()
    model.blocks[1].attn.gate = nn.Linear(32, 32)
    with pytest.raises(ecospa.UnsupportedModelError, match=r"blocks\.1\.attn\.gate"):
        ecospa.coupled_pairs(model)


def test_an_adapter_beside_the_projections_is_refused():
    model = ZOO["bert"].build()
    layer = model.bert.encoder.layer[0]
    layer.adapter = nn.Linear(32, 32)
    with pytest.raises(ecospa.UnsupportedModelError, match=r"layer\.0\.adapter\.weight.*no coupled pair"):
        ecospa.coupled_pairs(model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": 0.0}, r"top_k is 0\.0.*\(0, 1\]"),
        ({"top_k": 1.5}, r"top_k is 1\.5"),
        ({"importance_threshold": 1.0}, r"importance_threshold is 1\.0.*\(0, 1\)"),
        ({"importance_threshold": float("nan")}, "importance_threshold is nan"),
        ({"target_size": -0.5}, r"target_size is -0\.5"),
        ({"target_size": True}, "target_size is True"),
        ({"width_multiple": 0}, "width_multiple is 0"),
        ({"interval": 0}, "interval is 0"),
        ({"start_step": -1}, "start_step is -1"),
        ({"pace": "fast"}, "pace is 'fast'; choose one of paper, curve"),
        ({"target_scope": "heads"}, "target_scope"),
        ({"estimator": "hessian"}, "estimator"),
        ({"granularity": "token"}, "granularity"),
        ({"pace": "curve"}, "end_step is None"),
        ({"start_step": 10, "end_step": 10}, "end_step is 10; it must come after start_step"),
    ],
)
def test_config_errors_name_field_value_and_range(fields, message):
    with pytest.raises(ecospa.ConfigError, match=message):
        ecospa.EcoSpaConfig(**fields)


def sparsity(model, optimizer=None, **fields):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(**fields))


def test_target_out_of_reach_tells_the_smallest_value():
    model = build("gpt2")
    with pytest.raises(ecospa.ConfigError, match="smallest reachable value is 0"):
        sparsity(model, target_size=0.05)
    import re

    with pytest.raises(ecospa.ConfigError) as caught:
        sparsity(model, target_size=0.05, target_scope="blocks", width_multiple=4)
    smallest = float(re.search(r"reachable value is (0\.\d+)", str(caught.value))[1])
    sparsity(model, target_size=smallest + 1e-3, target_scope="blocks", width_multiple=4)
    with pytest.raises(ecospa.ConfigError):
        sparsity(model, target_size=smallest - 1e-3, target_scope="blocks", width_multiple=4)


def test_multiple_wider_than_a_head_is_refused():
    with pytest.raises(ecospa.ConfigError, match=r"width_multiple is 16, larger than the width 8 of .*\.qk"):
        sparsity(build("gpt2"), width_multiple=16)


def test_foreign_optimizer_is_refused_at_once():
    model, other = build("gpt2"), build("gpt2")
    with pytest.raises(ecospa.OptimizerStateError, match=r"h\.0\.attn\.c_attn\.weight.*does not hold"):
        sparsity(model, torch.optim.AdamW(other.parameters()), width_multiple=4)
    plan = random_plan(model, 3)
    before = [p.shape for p in model.parameters()]
    with pytest.raises(ecospa.OptimizerStateError, match="does not hold this parameter"):
        ecospa.apply_plan(model, plan, torch.optim.AdamW(other.parameters()))
    assert [p.shape for p in model.parameters()] == before


def test_optimizer_state_of_another_layout_is_named_and_nothing_is_cut():
    model = build("gpt2")
    optimizer = torch.optim.LBFGS(model.parameters(), history_size=3)
    parameter = model.transformer.h[0].mlp.c_fc.weight
    optimizer.state[parameter]["blocks"] = torch.zeros(7, 3)
    before = [p.shape for p in model.parameters()]
    with pytest.raises(ecospa.OptimizerStateError, match=r"c_fc\.weight: LBFGS state 'blocks' has shape \(7, 3\)"):
        ecospa.apply_plan(model, random_plan(model, 3), optimizer)
    assert [p.shape for p in model.parameters()] == before


def adafactors(model):
    from transformers.optimization import Adafactor

    yield torch.optim.Adafactor(model.parameters(), lr=1e-2)
    yield Adafactor(model.parameters(), lr=1e-2, relative_step=False, scale_parameter=False)


@pytest.mark.filterwarnings("ignore::ecospa.InexactOptimizerWarning")
@pytest.mark.parametrize("which", [0, 1])
def test_factored_state_is_cut_and_trains(which):
    model = ZOO["gpt2"].build()
    optimizer = list(adafactors(model))[which]
    tokens = torch.randint(1, 50, (2, 9))
    for _ in range(2):
        model(tokens).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        ecospa.apply_plan(model, ecospa.plan_shrink(model, 0.9, width_multiple=1), optimizer)
    model(tokens).logits.square().mean().backward()
    optimizer.step()
    for parameter, state in optimizer.state.items():
        for key in ("row_var", "col_var"):
            if key in state:
                assert all(a in (1, b) for a, b in zip(state[key].shape, parameter.shape, strict=True))


def test_plan_for_another_model_is_refused():
    model, other = build("gpt2"), build("bert")
    plan = random_plan(model, 3)
    with pytest.raises(ecospa.PlanError, match="the plan was made for"):
        ecospa.apply_plan(other, plan)
    ecospa.apply_plan(model, plan)
    with pytest.raises(ecospa.PlanError, match="build a new plan"):
        ecospa.apply_plan(model, plan)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (torch.tensor([[0, 1]]), r"must be int64 \(4 groups"),
        (torch.zeros(4, 2), "int64|parameter 'kept'"),
        (torch.tensor([[1, 0]] * 4), "ascending"),
        (torch.tensor([[0, 0]] * 4), "ascending"),
        (torch.tensor([[0, 8]] * 4), r"outside \[0, 8\)"),
        (torch.zeros(4, 0, dtype=torch.int64), "kept is empty"),
    ],
)
def test_malformed_plans_are_refused(kept, message):
    # with shapes checked, as in these tests, a wrong dtype is caught even before
    with pytest.raises((ecospa.PlanError, jaxtyping.TypeCheckError), match=message):
        ecospa.SparsityPlan.build(build("gpt2"), {"transformer.h.0.attn.qk": kept})


def test_unknown_pairs_and_split_rotary_couples_are_refused():
    with pytest.raises(ecospa.PlanError, match="no such pair"):
        ecospa.SparsityPlan.build(build("gpt2"), {"transformer.h.7.attn.qk": torch.tensor([[0]])})
    with pytest.raises(ecospa.PlanError, match=r"partners j and j \+ 8"):
        ecospa.SparsityPlan.build(build("llama-gqa"), {"model.layers.0.self_attn.qk": torch.tensor([[0, 1]] * 2)})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "kept": {"a": [1]}, "widths": {}}'])
def test_corrupt_plan_text_is_refused(text):
    with pytest.raises(ecospa.PlanError):
        ecospa.SparsityPlan.from_json(text)
