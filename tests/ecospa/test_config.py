"""Random configurations: refused with a ConfigError that names the field, or accepted and a tiny run works."""

import dataclasses
import random
import warnings
from fractions import Fraction

import numpy
import pytest
import torch

import ecospa
from tests.model_zoo import VOCABULARY, ZOO

COUNT = 80
LARGE = 660
IDS = torch.randint(2, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(1))

ODD = (
    None, True, False, "", "0.5", "auto", "dense", b"paper", float("nan"), float("inf"), -float("inf"), -0.0, 0, -1, 1,
    10**400, 10**5000, 2**53, 2**53 + 1, 1e-320, 1e-300, 1 - 2**-53, 1e300, 0.3 + 0j, [], [0.5], {}, {"qk": 1}, {1: 2},
    {"qk": 4, "vo": 4, "ffn": 4}, {"qk": 4, "vo": 4, "ffn": 4, "tied": "yes"}, {"qk": 0.5, "vo": 4, "ffn": 4},
    set(), object(), numpy.float32(0.5), numpy.float64("nan"), numpy.int64(2), numpy.int8(-3), numpy.bool_(True),
    numpy.array(0.5), numpy.array([1, 2]), torch.tensor(0.5), torch.tensor([1, 2]), Fraction(1, 2),
    ecospa.WidthRule(2, 2, 2), ecospa.WidthRule(0, 2, 2), ecospa.WidthRule(2, 2, numpy.int64(2), True),
)  # fmt: skip
USUAL = {
    "top_k": (0.3, 1.0, 1),
    "importance_threshold": (0.9, 0.5),
    "target_size": (0.5, 0.8, 0.999, 1.0, 0.01),
    "target_scope": ("blocks", "parameters"),
    "interval": (None, 1, 3),
    "start_step": (0, 2, 5),
    "end_step": (None, 3, 6),
    "pace": ("paper", "curve"),
    "curve": ("linear", "cubic"),
    "width_multiple": (1, 2, 4, 8, 16),
    "min_width": (None, 1, 4, 8),
    "granularity": ("layer", "head"),
    "estimator": ("fisher", "adam"),
    "relative_to": ("dense", "current"),
    "importance_scale": ("none", "weight_norm", "first_order", "kind"),
    "select_within": ("all", "kind"),
    "min_share": (0.0, 0, 0.15, 0.4),
    "ranking": ("pairs", "units"),
}
ONE_SHOT = (
    "top_k", "importance_threshold", "target_size", "target_scope", "width_multiple", "relative_to", "select_within",
    "min_share", "ranking",
)  # fmt: skip


def fields(seed, names=tuple(USUAL)):
    """Usual values for some fields, an odd one for one or two of them."""
    chance = random.Random(seed)
    chosen = {name: chance.choice(USUAL[name]) for name in names if chance.random() < 0.6}
    for name in chance.sample(names, chance.choice((0, 1, 1, 2))):
        chosen[name] = chance.choice(ODD)
    return chosen


def run(config):
    torch.manual_seed(0)
    model = ZOO["gpt2"].build().eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    for _ in range(4):
        model(input_ids=IDS, labels=IDS).loss.backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()
    assert sparsity.sparsifier.size(model) >= sparsity.sparsifier.target_size and sparsity.report()


def check(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = ecospa.EcoSpaConfig(**fields(seed))
            assert ecospa.EcoSpaConfig(**dataclasses.asdict(config)) == config
            run(config)
        except ecospa.ConfigError as error:
            assert any(name in str(error) for name in USUAL), error
        given = fields(seed + 10**6, ONE_SHOT)
        model = ZOO["gpt2"].build()
        before = [parameter.shape for parameter in model.parameters()]
        try:
            plan = ecospa.plan_shrink(model, **given)
        except ecospa.ConfigError as error:
            assert any(name in str(error) for name in USUAL), error
            assert [parameter.shape for parameter in model.parameters()] == before
        else:
            ecospa.apply_plan(model, plan)


def test_random_configurations():
    for seed in range(COUNT):
        check(seed)


@pytest.mark.fuzz
def test_many_random_configurations():
    for seed in range(LARGE):
        check(seed)


@pytest.mark.parametrize("theta", [1 - 2**-53, 1 - 1e-12, 0.9999])
def test_a_theta_next_to_one_still_lands(theta):
    model = ZOO["gpt2"].build()
    dense = ecospa.accounting.parameters(model, "blocks")
    plan = ecospa.plan_shrink(model, 0.6, target_scope="blocks", width_multiple=4, importance_threshold=theta)
    assert 0.6 <= ecospa.accounting.parameters(model, "blocks", plan) / dense < 0.65


def test_numbers_of_numpy_are_kept_as_plain_ones():
    config = ecospa.EcoSpaConfig(target_size=numpy.float32(0.5), interval=numpy.int64(3), width_multiple=numpy.int8(4))
    assert [type(value) for value in (config.target_size, config.interval, config.width_multiple)] == [float, int, int]
    with pytest.raises(ecospa.ConfigError, match="relative_to is 'full'; choose one of dense, current"):
        ecospa.EcoSpaConfig(relative_to="full")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.popitem(), "lacks"),
        (lambda values: values.update(dict.fromkeys(values, float("nan"))), "is nan; it must be a finite number"),
        (lambda values: values.update(dict.fromkeys(values, "1")), "is '1'"),
    ],
)
def test_importances_are_checked(change, message):
    model = ZOO["gpt2"].build()
    importances = {pair.name: 1.0 for pair in ecospa.coupled_pairs(model)}
    change(importances)
    with pytest.raises(ecospa.ConfigError, match=f"importances.*{message}"):
        ecospa.plan_shrink(model, 0.9, width_multiple=2, importances=importances)
    scores = {pair.name: torch.ones(pair.groups, pair.units) for pair in ecospa.coupled_pairs(model)}
    with pytest.raises(ecospa.ConfigError, match=r"scores.* holds a negative"):
        ecospa.plan_shrink(model, 0.9, width_multiple=2, scores={name: -value for name, value in scores.items()})
    scores.popitem()
    with pytest.raises(ecospa.ConfigError, match="scores lacks"):
        ecospa.plan_shrink(model, 0.9, width_multiple=2, scores=scores)
