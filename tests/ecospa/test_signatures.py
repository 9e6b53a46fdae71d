"""Forwards that take the place of a library's: the same arguments, and everything that is not ours is passed on."""

import inspect

import pytest
import torch
from transformers import AttentionInterface, GenerationConfig, Trainer, TrainerCallback

import ecospa
from ecospa.attention import CoupledAttention, _is_paged
from ecospa.class_swap import Swapped, original_class
from ecospa.families import families, family_of, transformer_blocks
from ecospa.huggingface import EcoSpaCallback, EcoSpaTrainer
from ecospa.laid_out_attention import LaidOutAttention
from tests.model_zoo import ZOO, inputs, random_plan

TRANSFORMERS = [kind for kind in ZOO if not kind.startswith("timm")]
CACHE = {"cache": "past_key_values"}  # one thing, by its newer and its older name


def arguments(function):
    """Named arguments in their order, and whether others are taken as well."""
    given = [one for one in inspect.signature(function).parameters.values() if one.name != "self"]
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = {CACHE.get(one.name, one.name): one for one in given if one.kind not in several}
    return named, {one.kind for one in given} & set(several)


def check(ours, theirs):
    (mine, open_mine), (original, open_original) = arguments(ours), arguments(theirs)
    handed_on = len(open_mine) == 2  # *args and **kwargs: whatever is not named goes on as it came
    known = list(mine) if handed_on else list(original)
    assert list(mine)[: len(known)] == list(original)[: len(known)], "names and order"
    assert handed_on or open_mine >= open_original
    for name, one in original.items():
        assert one.default is one.empty or name not in mine or mine[name].default == one.default, name


@pytest.mark.parametrize("kind", ZOO)
def test_attention_takes_what_the_installed_release_gives(kind):
    model = ZOO[kind].build()
    for block in transformer_blocks(model).values():
        family = family_of(block)
        for module in block.modules():
            if any(module is block.get_submodule(one.module) for one in family.mergeable if one.forward is not None):
                forward = next(one.forward for one in family.mergeable if one.forward is not None).forward
                check(forward, type(module).forward)
    names = {pair.module for pair in ecospa.coupled_pairs(model) if pair.kind == "qk"}
    assert len(names) == len(transformer_blocks(model))
    family = family_of(next(iter(transformer_blocks(model).values())))
    for name in names:
        check(family.attention.forward, original_class(model.get_submodule(name)).forward)


def test_every_swapped_forward_is_one_of_those():
    mixins = {family.attention for family in families()}
    mixins |= {one.forward for family in families() for one in family.mergeable if one.forward is not None}
    parents = (LaidOutAttention, CoupledAttention, Swapped)
    written = {kind for parent in parents for kind in parent.__subclasses__()}
    known = {kind for kind in written if "original" not in vars(kind)}  # the others are made of these at a swap
    assert known - {CoupledAttention, LaidOutAttention} == mixins


@pytest.mark.parametrize(("ours", "theirs"), [(EcoSpaTrainer, Trainer), (EcoSpaCallback, TrainerCallback)])
def test_overridden_methods_of_the_trainer_take_the_same(ours, theirs):
    names = [name for name, value in vars(ours).items() if inspect.isfunction(value) and hasattr(theirs, name)]
    assert len(names) > 3
    for name in names:
        if name != "__init__":  # takes the rest as keywords
            check(vars(ours)[name], getattr(theirs, name))


@pytest.mark.parametrize("kind", TRANSFORMERS)
@torch.no_grad()
def test_an_attention_function_is_handed_the_same_before_and_after_the_cut(kind):
    seen = []

    def recorder(module, query, key, value, attention_mask, **kwargs):
        seen.append((sorted(kwargs), attention_mask is None, {name: kwargs[name] for name in ("scaling", "dropout")}))
        out = torch.zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1], dtype=query.dtype)
        return out, None

    AttentionInterface.register("recorder", recorder)
    model = ZOO[kind].build().eval()
    plan = random_plan(model, 3)
    extra = {"of_the_callers_own": 7}
    batch = {name: x if x.dtype == torch.int64 else x.float() for name, x in inputs(kind).items()}
    options = {"use_cache": True} if ZOO[kind].causal else {}
    model.set_attn_implementation("recorder")
    model(**batch, **options, **extra)
    whole = list(seen)
    seen.clear()
    model.set_attn_implementation("sdpa")
    ecospa.apply_plan(model, plan)
    model.set_attn_implementation("recorder")
    model(**batch, **options, **extra)
    assert seen == whole and len(seen) == 2
    assert "of_the_callers_own" in seen[0][0]


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2", "qwen3"])
@pytest.mark.parametrize("narrow", ["qk", "vo"])
@torch.no_grad()
def test_continuous_batching_gives_the_tokens_of_the_whole_cache(kind, narrow):
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    model = ZOO[kind].build().eval()
    pairs = [pair for pair in ecospa.coupled_pairs(model) if pair.name.endswith(narrow)]
    kept = {pair.name: ecospa.pairs.unit_positions(pair, torch.arange(2).repeat(pair.groups, 1)) for pair in pairs}
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept))
    prompts = [list(range(20, 28)), list(range(5, 10))]
    options = {"max_new_tokens": 5, "do_sample": False}
    wanted = [
        model.generate(torch.tensor([prompt]), min_new_tokens=5, **options)[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
    generation = GenerationConfig(eos_token_id=-1, pad_token_id=0, **options)
    small = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64)
    found = model.generate_batch(prompts, generation_config=generation, continuous_batching_config=small)
    tokens = {tuple(one.prompt_ids): one.generated_tokens for one in found.values()}
    assert [tokens.get(tuple(prompt)) for prompt in prompts] == wanted


def test_a_paged_cache_is_known_by_its_name():
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    assert _is_paged(PagedAttentionCache.__new__(PagedAttentionCache)) and not _is_paged(None)
