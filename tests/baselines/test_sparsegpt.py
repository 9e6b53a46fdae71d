"""SparseGPT against the exact optimal brain surgeon, row by row, with inverses taken anew for every weight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import baselines
from baselines import magnitude, wanda
from baselines.calibration import Calibration, output_error
from baselines.entries import block_matrices
from baselines.sparsegpt import others_of_run, prune_weight, surgeon, up_to
from ecospa import ConfigError
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, CALIBRATION, Run, tiny_gpt2
from tests.model_zoo import build, inputs


def correlated(rows: int = 200, columns: int = 24, seed: int = 0) -> Tensor:
    """(rows, columns) inputs of low rank plus noise, every column of its own scale."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    return (draw(rows, columns // 3) @ draw(columns // 3, columns) + 0.3 * draw(rows, columns)) * (
        0.5 * draw(columns)
    ).exp()


def weights(rows: int = 10, columns: int = 24, seed: int = 1) -> Tensor:
    """(rows, columns) weights."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def damped(x: Tensor, damping: float = 0.01) -> Tensor:
    """The Hessian of the layer's squared error."""
    hessian = 2 * x.t() @ x / len(x)
    return hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)


def surgeon_by_hand(weight: Tensor, hessian: Tensor, choose: Any) -> tuple[Tensor, Tensor]:
    """Columns from left to right; for every one the inverse of the Hessian of the columns that are not fixed yet.

    `choose(weight, costs, column)` is asked at every column and may return the mask of some columns from there on;
    costs(k) of column k is w^2 / [H_F^-1]_kk with F = the columns from k on.
    """
    weight, columns = weight.clone(), weight.shape[1]
    mask = torch.zeros_like(weight, dtype=torch.bool)
    inverse = [torch.linalg.inv(hessian[column:, column:]) for column in range(columns)]
    for column in range(columns):
        costs = torch.stack([weight[:, k] ** 2 / inverse[k][0, 0] for k in range(columns)], dim=1)
        chosen = choose(costs, column)
        if chosen is not None:
            mask[:, column : column + chosen.shape[1]] = chosen
        for row in range(len(weight)):
            if mask[row, column]:
                weight[row, column:] -= weight[row, column] / inverse[column][0, 0] * inverse[column][0]
                weight[row, column] = 0
    return weight, mask


@pytest.mark.parametrize("width", [1, 5, 8, 24, 100])
def test_it_is_the_exact_surgeon_with_masks_chosen_per_block(width: int) -> None:
    weight, x = weights(), correlated()

    def choose(costs: Tensor, column: int) -> Tensor | None:
        if column % width:
            return None
        block = costs[:, column : column + width]
        return block <= block.flatten().sort().values[int(block.numel() * 0.4)]

    expected, mask = surgeon_by_hand(weight, damped(x), choose)
    result = prune_weight(weight, x, 0.4, block_size=width)
    assert (result - expected).abs().max() < 1e-8
    assert torch.equal(result == 0, mask)


@pytest.mark.parametrize("pattern", [(2, 4), (1, 4), (4, 8)])
def test_a_pattern_is_chosen_from_the_weights_as_they_are_then(pattern: tuple[int, int]) -> None:
    weight, x = weights(), correlated()
    keep, run = pattern

    def choose(costs: Tensor, column: int) -> Tensor | None:
        if column % run:
            return None
        block = costs[:, column : column + run]
        return torch.stack([row.argsort().argsort() < run - keep for row in block])

    expected, mask = surgeon_by_hand(weight, damped(x), choose)
    result = prune_weight(weight, x, pattern=f"{keep}:{run}")
    assert (result - expected).abs().max() < 1e-8
    assert ((result.view(-1, run) != 0).sum(1) == keep).all()
    assert torch.equal(result == 0, mask)


def test_the_block_size_alone_changes_nothing_but_the_order_of_sums() -> None:
    weight, x = weights(), correlated()
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(5)) < 0.5
    fixed = lambda scores, start: mask[:, start : start + scores.shape[1]]  # noqa: E731
    results = [surgeon(weight, x.t() @ x, len(x), fixed, width)[0] for width in (1, 3, 7, 24, 64)]
    assert all((result - results[0]).abs().max() < 1e-8 for result in results)
    assert torch.equal(results[0] == 0, mask)


def test_what_stays_of_a_row_is_its_least_squares_solution_when_the_first_columns_go() -> None:
    weight, x = weights(4), correlated()
    mask = torch.zeros(4, 24, dtype=torch.bool)
    mask[:, :9] = True
    result, _ = surgeon(weight, x.t() @ x, len(x), lambda scores, start: mask[:, start : start + scores.shape[1]], 5)
    hessian = damped(x)
    expected = torch.linalg.solve(hessian[9:, 9:], (weight @ hessian)[:, 9:].t()).t()
    assert (result[:, 9:] - expected).abs().max() < 1e-8


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", [{"sparsity": 0.5}, {"sparsity": 0.7}, {"pattern": "2:4"}])
def test_it_errs_less_than_wanda_and_magnitude_on_correlated_inputs(seed: int, form: dict[str, Any]) -> None:
    weight, x = weights(40, 96, seed), correlated(400, 96, seed + 10)

    def error(pruned: Tensor) -> float:
        return float((x @ (pruned - weight).t()).norm())

    ours = prune_weight(weight, x, block_size=32, **form)
    theirs = {
        "wanda": wanda.prune_weight(weight, x, **form),
        "magnitude": magnitude.prune_weight(weight, **form),
    }
    for name, pruned in theirs.items():
        assert int((ours == 0).sum()) >= int((pruned == 0).sum()), name  # no budget advantage
        assert error(ours) < 0.9 * error(pruned), name


def test_dead_inputs_lose_their_weights_and_nothing_else_changes() -> None:
    weight, x = weights(), correlated()
    x[:, [3, 11]] = 0
    result = prune_weight(weight, x, 0.0)
    assert not result[:, [3, 11]].any()
    others = [column for column in range(24) if column not in (3, 11)]
    assert torch.equal(result[:, others], weight[:, others])


def test_dtype_and_arguments_are_kept() -> None:
    weight, x = weights().to(torch.bfloat16), correlated().to(torch.bfloat16)
    before = weight.clone()
    result = prune_weight(weight, x, 0.5)
    assert result.dtype == torch.bfloat16 and torch.equal(weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 1.0}, "sparsity is 1.0"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"pattern": "2:5"}, "5 must divide the 24 inputs"),
        ({"pattern": "4:2"}, "pattern is '4:2'"),
        ({"block_size": 0}, "block_size is 0"),
        ({"block_size": 2.5}, "block_size"),
        ({"damping": 0}, "damping is 0"),
        ({"inputs": torch.zeros(3, 23)}, "23 columns"),
        ({"inputs": torch.zeros(0, 24)}, "inputs is"),
        ({"inputs": torch.full((2, 24), float("nan"))}, "NaN"),
        ({"weight": torch.zeros(3)}, "weight is"),
    ],
)
def test_senseless_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prune_weight(**{"weight": weights(), "inputs": correlated(), **change})


def test_rules_count_what_they_say() -> None:
    scores = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    assert int(up_to(0.25)(scores, 0).sum()) == 13  # the 12 below the threshold and the one on it
    assert not up_to(0.0)(scores, 0).any()
    assert (others_of_run(3)(scores, 0).sum(1) == 3).all()


KINDS = ("gpt2", "llama-gqa", "bert", "vit", "timm-vit")


def calibration_of(kind: str) -> Calibration:
    """Four batches for a model of the zoo."""
    return Calibration(tuple(inputs(kind, seed) for seed in range(4)))


def pruned(name: str, kind: str, target: float = 0.6) -> tuple[Any, Any, Any]:
    """(method, pruned model, dense model)."""
    model, whole = build(kind), build(kind)
    method = baselines.load(name)(replace(BUDGET, target_size=target))
    run = Run.fresh(type(method), method.budget, model, calibration_of(kind))
    return run.finish().method, model, whole


@pytest.mark.parametrize("name", ["sparsegpt", "wanda"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_lands_exactly_on_its_target(name: str, kind: str) -> None:
    method, model, whole = pruned(name, kind)
    blocks = parameters(whole, "blocks")
    assert method.nonzero_parameters(model)[1] == round(0.6 * blocks)
    zeros = 0
    for parameter, weight in block_matrices(model).items():
        assert torch.equal(weight == 0, method.masks.removed[parameter]), parameter
        zeros += int((weight == 0).sum())
    assert zeros == blocks - round(0.6 * blocks) == method.masks.count


@pytest.mark.parametrize("name", ["sparsegpt_2_4", "wanda_2_4"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_of_every_four_inputs_stay(name: str, kind: str) -> None:
    whole = build(kind)
    _, model, _ = pruned(name, kind)  # asked for the size that the pattern gives
    half = sum(weight.numel() for weight in block_matrices(whole).values()) // 2
    assert sum(int((weight == 0).sum()) for weight in block_matrices(model).values()) == half
    for parameter, weight in block_matrices(model).items():
        linear = isinstance(model.get_submodule(parameter.removesuffix(".weight")), torch.nn.Linear)
        runs = (weight if linear else weight.t()).reshape(-1, 4)
        assert ((runs != 0).sum(1) == 2).all(), parameter
    with pytest.raises(ConfigError, match="2:4 gives"):
        baselines.load(name)(replace(BUDGET, target_size=0.8)).prepare(build(kind), calibration_of(kind))


def test_two_of_four_needs_inputs_that_four_divides() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=30, n_head=3, vocab_size=31, n_positions=16))
    share = 1 - sum(w.numel() for w in block_matrices(model).values()) / 2 / parameters(model, "blocks")
    for name in ("sparsegpt_2_4", "wanda_2_4"):
        with pytest.raises(ConfigError, match="has 30 inputs"):
            baselines.load(name)(replace(BUDGET, target_size=share)).prepare(model, CALIBRATION)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_errs_less_than_with_wanda(kind: str) -> None:
    data = calibration_of(kind)
    _, ours, whole = pruned("sparsegpt", kind, 0.7)
    _, theirs, _ = pruned("wanda", kind, 0.7)
    assert output_error(ours, whole, data) < output_error(theirs, whole, data)


def test_the_second_block_sees_what_the_pruned_first_one_gives() -> None:
    model = tiny_gpt2(dtype=torch.float64)
    whole = tiny_gpt2(dtype=torch.float64)
    run = Run.fresh(baselines.load("sparsegpt"), replace(BUDGET, target_size=0.6), model).finish()
    seen: list[Tensor] = []
    hook = model.transformer.h[1].attn.c_attn.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        for batch in CALIBRATION.batches:
            model.eval()(batch["input_ids"])
    hook.remove()
    x = torch.cat(seen).flatten(0, 1)
    removed = run.method.masks.removed["transformer.h.1.attn.c_attn.weight"].t()  # type: ignore[attr-defined]
    weight = whole.transformer.h[1].attn.c_attn.weight.detach().t()
    expected, _ = surgeon(
        weight, x.t() @ x, len(x), lambda scores, start: removed[:, start : start + scores.shape[1]], 9
    )
    assert (model.transformer.h[1].attn.c_attn.weight.detach().t() - expected).abs().max() < 1e-8
