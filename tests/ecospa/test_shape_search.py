"""Probes: EcoSpa in a plain loop and nothing else, stopped at the target; fresh models of the shape that they find."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import ecospa
from ecospa import ConfigError, EcoSpaConfig, ShapeError, build_small, find_shape
from ecospa.accounting import parameters, training_flops
from ecospa.plan import index_parameters
from tests.model_zoo import VOCABULARY, ZOO, inputs, logits

STEPS = 8
CONFIG = EcoSpaConfig(target_scope="blocks", width_multiple=2)
SWITCHES = {
    "literal": CONFIG,
    "curve": replace(CONFIG, pace="curve", end_step=STEPS, interval=2),
    "taylor": replace(CONFIG, importance_scale="first_order"),
    "by_kind": replace(CONFIG, importance_scale="kind", select_within="kind"),
    "units": replace(CONFIG, ranking="units", pace="curve", start_step=1, end_step=STEPS, interval=2),
}
IDS = torch.randint(2, VOCABULARY, (6, 4, 8), generator=torch.Generator().manual_seed(1))
BATCHES = [{"input_ids": rows, "labels": rows} for rows in IDS]


def gpt2():
    return ZOO["gpt2"].build()


def batches(kind):
    if not ZOO[kind].image:
        return BATCHES
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return [{"pixel_values": images, "labels": torch.arange(4)}]


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05)


def by_hand(config, seed):
    """EcoSpa as a reader of the README writes it; the model at the end, and the steps that it took."""
    torch.manual_seed(seed)
    model = gpt2().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sparsity = ecospa.CoupledSparsity(model, optimizer, replace(config, target_size=0.5, end_step=STEPS))
    for step in range(STEPS):
        model(**BATCHES[step % len(BATCHES)]).loss.backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()
        if sparsity.finished:
            break
    assert sparsity.reached
    return model, sparsity


@pytest.mark.parametrize("name", SWITCHES)
def test_a_probe_is_ecospa_in_a_plain_loop(name):
    """Bitwise, with dropout, so that the random numbers have to be the same ones, too."""
    trained = []

    def build():
        trained.append(gpt2())
        return trained[-1]

    state = torch.get_rng_state()
    shape = find_shape(build, BATCHES, 0.5, config=SWITCHES[name], steps=STEPS, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    model, sparsity = by_hand(SWITCHES[name], seed=5)
    assert shape.widths == sparsity.history[-1].widths and shape.parameters == parameters(model)
    assert shape.seeds == (5,) and shape.probe_steps == sparsity.step and shape.rule == "probe"
    found, expected = trained[0].state_dict(), model.state_dict()
    assert list(found) == list(expected) and all(torch.equal(found[key], expected[key]) for key in found)
    assert EcoSpaConfig(**shape.settings) == sparsity.config


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert", "vit"])
def test_the_shape_lands_and_a_fresh_model_has_it(kind, tmp_path):
    model = ZOO[kind].build()
    shape = find_shape(ZOO[kind].build, batches(kind), 0.6, config=CONFIG, steps=STEPS, optimizer=sgd)
    left = parameters(model, "blocks", shape.plan(model)) - round(0.6 * parameters(model, "blocks"))
    cuttable = [pair for pair in ecospa.coupled_pairs(model) if shape.widths[pair.name] > 2]
    assert 0 <= left < min(2 * index_parameters(model, pair) for pair in cuttable)

    small = build_small(ZOO[kind].build, shape, seed=1)
    cut = copy.deepcopy(model)
    ecospa.apply_plan(cut, shape.plan(cut))
    expected = {name: tuple(value.shape) for name, value in cut.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in small.state_dict().items()} == expected
    assert small.config.ecospa == cut.config.ecospa
    torch.manual_seed(1)
    again = ZOO[kind].build()
    ecospa.apply_plan(again, shape.plan(again))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in small.state_dict().items())

    batch = {name: value.float() if value.is_floating_point() else value for name, value in inputs(kind).items()}
    ecospa.save_pretrained(small, tmp_path)
    loaded = ecospa.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(small.eval(), batch), logits(loaded, batch))
    assert ecospa.verify(small).exact
    smaller = ecospa.plan_shrink(small, 0.5, target_scope="blocks", width_multiple=2)
    assert parameters(small, "blocks", smaller) <= round(0.5 * parameters(model, "blocks")) + 2 * 64 * 4


def test_weights_are_those_that_the_architecture_draws_at_any_width():
    shape = ecospa.Shape.build(gpt2(), {"transformer.h.0.mlp.ffn": 64, "transformer.h.1.mlp.ffn": 64})
    drawn = [build_small(gpt2, shape, seed=seed).transformer.h for seed in range(8)]
    for name, spread in (("c_fc", 0.02), ("c_proj", 0.02 / 2)):  # two blocks: 1 / sqrt(2 L) is a half
        entries = torch.stack([getattr(block.mlp, name).weight for blocks in drawn for block in blocks])
        assert entries.shape[0] == 16 and entries.numel() == 16 * 32 * 64
        assert entries.std().item() == pytest.approx(spread, rel=0.03)
        assert entries.mean().item() == pytest.approx(0, abs=spread / 30)
    assert not torch.equal(drawn[0][0].mlp.c_fc.weight, drawn[1][0].mlp.c_fc.weight)


def test_several_probes_are_averaged_with_the_cost_of_all():
    built = []

    def build():
        built.append(gpt2())
        return built[-1]

    common = {"target_size": 0.5, "config": CONFIG}
    shape = find_shape(build, lambda seed: BATCHES[seed % 2 :], total_steps=20, probes=2, **common)
    single = [find_shape(gpt2, BATCHES[seed % 2 :], steps=4, seed=seed, **common) for seed in range(2)]
    assert len(built) == 2 and shape.seeds == (0, 1) and shape.probe_steps == 8  # a fifth of 20 each
    assert shape.probe_flops == sum(one.probe_flops for one in single)
    assert shape.widths == ecospa.shape_rules.average(gpt2(), single, replace(CONFIG, target_size=0.5)).widths
    for name, width in shape.widths.items():
        assert min(one.widths[name] for one in single) - 2 <= width <= max(one.widths[name] for one in single) + 2


def test_flops_are_those_of_the_sizes_on_the_way():
    config = replace(CONFIG, pace="curve", start_step=3, end_step=4, interval=1)
    model = gpt2()
    shape = find_shape(gpt2, BATCHES, 0.5, config=config, steps=STEPS)
    assert shape.probe_steps == 4  # it is over when the target is reached
    assert shape.probe_flops == 4 * training_flops(model, 4, 8)
    twice = find_shape(gpt2, BATCHES, 0.5, config=config, loss=lambda m, b: m(**b).loss + m(**b).loss)
    assert twice.probe_flops == 2 * shape.probe_flops and twice.probe_steps == 4


def test_a_loss_of_the_users_own_and_images_of_timm():
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    pairs = [(images, torch.arange(4))]
    shape = find_shape(
        ZOO["timm-vit"].build, pairs, 0.5, config=CONFIG, steps=STEPS,
        loss=lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
    )  # fmt: skip
    assert shape.probe_flops > 0
    small = build_small(ZOO["timm-vit"].build, shape)
    assert small(images).shape == (4, 5) and parameters(small) == shape.parameters


def test_a_model_that_comes_twice_is_refused():
    model = gpt2()
    with pytest.raises(ConfigError, match=r"build\(\) returned the model that it had returned before"):
        find_shape(lambda: model, BATCHES, 0.5, config=CONFIG, steps=STEPS, probes=2)
    for attempt in (
        lambda: find_shape(lambda: model, BATCHES, 0.5, config=CONFIG, steps=STEPS),
        lambda: build_small(lambda: model, ecospa.Shape.build(gpt2(), {})),
    ):
        with pytest.raises(ShapeError, match="the model has been cut"):
            attempt()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({}, "steps and total_steps are None"),
        ({"steps": STEPS, "probes": 0}, "probes is 0"),
        ({"steps": STEPS, "seed": -1}, "seed is -1"),
        ({"steps": STEPS, "target_size": 0.001}, "target_size is 0.001; the smallest reachable value"),
        ({"steps": 4, "config": replace(CONFIG, end_step=5)}, r"config\.end_step is 5; it must lie in \[1, 4\]"),
        ({"steps": 2, "config": replace(CONFIG, interval=1)}, "steps is 2: step 2: the target is not reached"),
        ({"steps": STEPS, "batches": []}, "batches hold no batch"),
        ({"steps": STEPS, "batches": iter(BATCHES)}, "batches ended after 6 of 8 steps and cannot begin again"),
        ({"steps": STEPS, "build": lambda: None}, r"build\(\) returned a NoneType"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:12],
)
def test_what_cannot_be_searched_is_refused(options, told):
    given = {"build": gpt2, "batches": BATCHES, "config": CONFIG, **options}
    with pytest.raises(ConfigError, match=told):
        find_shape(**given)
