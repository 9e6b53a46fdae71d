"""Invariants 3 to 6: scores, identity, names, ties, hooks, storage, rotary couples, composition."""

import copy

import pytest
import torch

import ecospa
from ecospa.sparsifier import pair_scores
from tests.model_zoo import ZOO, build, inputs, logits, random_plan

KINDS = list(ZOO)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_empty_plan_is_bitwise_identity(kind):
    model = build(kind)
    before, classes = logits(model, inputs(kind)), [type(module) for module in model.modules()]
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, {}))
    assert torch.equal(logits(model, inputs(kind)), before)
    assert [type(module) for module in model.modules()] == classes


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_two_plans_are_their_composition(kind):
    once, twice = build(kind), build(kind)
    first = random_plan(twice, 1)
    ecospa.apply_plan(twice, first)
    second = random_plan(twice, 2)
    ecospa.apply_plan(twice, second)
    pairs = {pair.name: pair for pair in ecospa.coupled_pairs(once)}
    composed = {}
    for name, pair in pairs.items():
        kept = first.kept.get(name, torch.arange(pair.width).repeat(pair.groups, 1))
        composed[name] = kept.gather(1, second.kept[name]) if name in second.kept else kept
    ecospa.apply_plan(once, ecospa.SparsityPlan.build(once, composed))
    assert torch.equal(logits(once, inputs(kind)), logits(twice, inputs(kind)))
    for (name, mine), theirs in zip(once.state_dict().items(), twice.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("kind", KINDS)
def test_counts_identity_names_and_storage(kind):
    model = build(kind)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    plan = random_plan(model, 3)
    assert plan.parameters_before == sum(p.numel() for p in model.parameters())
    ecospa.apply_plan(model, plan)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    assert plan.parameters_after == sum(p.numel() for p in model.parameters())
    assert {pair.name: pair.width for pair in ecospa.coupled_pairs(model)} == plan.widths_after()
    for name, parameter in model.named_parameters():
        assert parameter.is_contiguous()
        assert parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size(), name


@pytest.mark.parametrize("kind", ["gpt2", "llama-bias-tied", "bert", "timm-vit"])
def test_gradients_hooks_and_live_graphs_survive(kind):
    model = build(kind)
    pair = ecospa.coupled_pairs(model)[-1]
    parameter = model.get_parameter(pair.right[0].parameter)
    seen = []
    parameter.register_hook(lambda grad: seen.append(tuple(grad.shape)))
    loss = logits(model, inputs(kind)).square().mean()
    loss.backward()
    gradient = parameter.grad.clone()
    plan = random_plan(model, 5)
    ecospa.apply_plan(model, plan)
    kept = plan.kept[pair.name]
    positions = pair.right[0].index[torch.arange(pair.groups)[:, None], kept].permute(0, 2, 1).flatten().sort().values
    assert torch.equal(parameter.grad, gradient.index_select(pair.right[0].axis, positions))
    logits(model, inputs(kind)).square().mean().backward()
    assert seen[-1] == tuple(parameter.shape) == tuple(parameter.grad.shape)
    assert loss.isfinite()


@pytest.mark.parametrize("kind", ["gpt2", "llama-bias-tied"])
def test_tied_embeddings_stay_tied(kind):
    model = build(kind)
    ecospa.apply_plan(model, random_plan(model, 3))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_change_when_a_scale_moves_across_the_pair(kind):
    model = build(kind)
    for pair in ecospa.coupled_pairs(model):
        before = pair_scores(model, pair)
        with torch.no_grad():
            for axes, factor in ((pair.left, 4.0), (pair.right, 0.25)):
                for axis in axes:
                    parameter = model.get_parameter(axis.parameter)
                    if parameter.ndim > 1:
                        positions = axis.index.flatten().sort().values
                        parameter.index_copy_(
                            axis.axis, positions, factor * parameter.index_select(axis.axis, positions)
                        )
        assert torch.allclose(pair_scores(model, pair), before, rtol=1e-12)


def test_score_is_the_norm_of_what_leaves_the_product():
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    right = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    scores = ecospa.importance.index_scores(left, right)
    for index in range(5):
        kept = [j for j in range(5) if j != index]
        removed = left @ right - left[:, kept] @ right[kept]
        assert torch.allclose(scores[index], torch.linalg.matrix_norm(removed), rtol=1e-12)


@pytest.mark.parametrize("kind", ["llama-gqa", "qwen3"])
def test_rotary_couples_and_frequencies_are_the_original_ones(kind):
    model = build(kind)
    plan = random_plan(model, 8)
    ecospa.apply_plan(model, plan)
    for name, kept in plan.kept.items():
        if not name.endswith(".qk"):
            continue
        attention = model.get_submodule(name.removesuffix(".qk"))
        half = kept.shape[1] // 2
        assert torch.equal(attention.kept_qk, kept)
        assert torch.equal(attention.kept_qk[:, :half] + 8, attention.kept_qk[:, half:])
        assert attention.scaling == 16**-0.5


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2", "timm-vit"])
@torch.no_grad()
def test_deepcopy_and_gradient_checkpointing(kind):
    model = build(kind)
    ecospa.apply_plan(model, random_plan(model, 4))
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin, inputs(kind)), logits(model, inputs(kind)))
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
    with torch.enable_grad():
        grads = []
        for network, checkpointed in ((model, False), (twin, True)):
            if checkpointed and kind.startswith("timm"):
                network.set_grad_checkpointing(True)
            elif checkpointed:
                network.gradient_checkpointing_enable()
            network.train()
            for module in network.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            logits(network, inputs(kind)).square().mean().backward()
            grads.append([p.grad for p in network.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-14) for a, b in zip(*grads, strict=True) if a is not None)


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "timm-vit"])
def test_averages_are_cut_with_the_model(kind):
    model = build(kind)
    average = torch.optim.swa_utils.AveragedModel(model)
    plain = copy.deepcopy(model)
    ecospa.apply_plan(model, random_plan(model, 6), followers=(average, plain))
    average.update_parameters(model)
    for follower in (average.module, plain):
        assert torch.equal(logits(follower, inputs(kind)), logits(model, inputs(kind)))


def test_compiled_model_recompiles_after_a_cut():
    model = build("gpt2").float()
    compiled = torch.compile(model, backend="aot_eager")
    tokens = inputs("gpt2")["input_ids"]
    assert torch.allclose(compiled(tokens).logits, model(tokens).logits, atol=1e-5)
    ecospa.apply_plan(model, random_plan(model, 6))
    assert torch.allclose(compiled(tokens).logits, model(tokens).logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_plan_survives_json(kind):
    model = build(kind)
    plan = random_plan(model, 9)
    again = ecospa.SparsityPlan.from_json(plan.to_json())
    assert again.widths == plan.widths and again.parameters_after == plan.parameters_after
    assert again.kept.keys() == plan.kept.keys()
    assert all(
        torch.equal(again.kept[name], kept) and again.kept[name].dtype == torch.int64
        for name, kept in plan.kept.items()
    )
    with torch.device("meta"):
        on_meta = ZOO[kind].build()
    assert next(on_meta.parameters()).is_meta
    assert ecospa.SparsityPlan.build(on_meta, plan.kept).parameters_after == plan.parameters_after
