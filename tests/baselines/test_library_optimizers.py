"""Optimizers of the library pytorch-optimizer against their authors' definitions, step by step, by other code.

GaLore is not taken from there; that both agree says that ours is what others understand by it.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import baselines
import ecospa
from baselines.galore import GaLoreAdamW
from baselines.library_optimizers import Alice, LibraryMethod
from tests.baselines.optimizers import (
    DECAY,
    RATE,
    assert_same_steps,
    budget,
    gradients,
    random,
    trained,
)
from tests.baselines.runs import CALIBRATION, Run, tiny_gpt2

NAMES = sorted(name for name, method in baselines.methods().items() if issubclass(method, LibraryMethod))
SHAPES = [(8, 12), (12, 8)]
WITH_OBJECTS = {"fira": "projection", "conda": "projection", "soap": "GG.0"}


def rule(name: str, **options: Any) -> Callable[[list[dict[str, Any]]], Any]:
    """Groups -> what the method trains the matrices of the blocks with."""
    method: Any = baselines.load(name)(budget())

    def make(groups: list[dict[str, Any]]) -> Any:
        part = method.rule(groups)
        for group in part.param_groups:
            group.update(options)
        return part

    return make


def adam(first: Tensor, second: Tensor, step: int, betas: tuple[float, float], eps: float) -> Tensor:
    """M / (sqrt(V) + eps) with both corrections behind, as the authors of projections write Adam."""
    correction = math.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
    return correction * first / (second.sqrt() + eps)


def decayed(weight: Tensor) -> Tensor:
    """W after decoupled decay, which the library applies behind the step."""
    return weight * (1 - RATE * DECAY)


def test_all_that_the_library_gives_are_there() -> None:
    assert NAMES == ["alice", "conda", "fira", "soap", "stable_spam"]


@pytest.mark.parametrize("shape", SHAPES)
def test_our_galore_is_the_librarys(shape: tuple[int, int]) -> None:
    import pytorch_optimizer

    options = {"rank": 3, "update_proj_gap": 200, "scale": 0.25, "projection_type": "std"}
    theirs, _, _ = trained(
        lambda groups: pytorch_optimizer.GaLore([{**groups[0], **options}], lr=RATE, eps=1e-14), shape
    )
    ours, _, _ = trained(lambda groups: GaLoreAdamW(groups, lr=RATE, eps=1e-14, rank=3), shape)
    # the library looks for its basis in float32 and puts eps elsewhere
    assert_same_steps(ours, theirs, 1e-6)
    assert (ours[0] - random(*shape)).abs().max() > 1e-4


def fira_by_hand(shape: tuple[int, int]) -> list[Tensor]:
    """GaLore's step plus the scaled rest, in the orientation in which the smaller side comes first."""
    tall = shape[0] >= shape[1]
    weight, after, before = random(*shape), [], math.inf
    rank, scale, betas = min(shape) // 4, 0.25, (0.9, 0.999)
    for step, raw in enumerate(gradients(shape)):
        gradient = raw.T if tall else raw
        if step == 0:
            basis = torch.linalg.eigh(gradient @ gradient.T).eigenvectors.flip(1)[:, :rank]
            first = second = torch.zeros(rank, max(shape), dtype=torch.float64)
        low = basis.T @ gradient
        first, second = 0.9 * first + 0.1 * low, 0.999 * second + 0.001 * low**2
        step_low = first / (second.sqrt() + 1e-6)
        rest = gradient - scale * basis @ low
        for column in range(rest.shape[1]):
            rest[:, column] *= step_low[:, column].norm() / low[:, column].norm()
        kept = min(float(rest.norm()), 1.01 * before)
        rest, before = rest * (kept / rest.norm()), kept
        correction = math.sqrt(1 - betas[1] ** (step + 1)) / (1 - betas[0] ** (step + 1))
        update = correction * (scale * basis @ step_low + rest)
        weight = decayed(weight - RATE * (update.T if tall else update))
        after.append(weight)
    return after


@pytest.mark.parametrize("shape", SHAPES)
def test_fira_is_its_authors(shape: tuple[int, int]) -> None:
    ours, _, _ = trained(rule("fira"), shape)
    assert_same_steps(ours, fira_by_hand(shape), 1e-6)  # the library looks for its basis in float32


def soap_by_hand(shape: tuple[int, int], frequency: int) -> list[Tensor]:
    """Adam in the eigenbases of both averages; the first gradient only fills these."""
    beta, eps, weight, after = 0.95, 1e-8, random(*shape), []
    first = second = torch.zeros(shape, dtype=torch.float64)
    for step, gradient in enumerate(gradients(shape)):
        outer, inner = gradient @ gradient.T, gradient.T @ gradient
        if step == 0:
            left, right = (1 - beta) * outer, (1 - beta) * inner
            bases = [torch.linalg.eigh(one).eigenvectors.flip(1) for one in (left, right)]
            after.append(weight)
            continue
        rotated = bases[0].T @ gradient @ bases[1]
        first, second = beta * first + (1 - beta) * gradient, beta * second + (1 - beta) * rotated**2
        update = adam(bases[0].T @ first @ bases[1], second, step, (beta, beta), eps)
        weight = decayed(weight - RATE * bases[0] @ update @ bases[1].T)
        left, right = beta * left + (1 - beta) * outer, beta * right + (1 - beta) * inner
        if step % frequency == 0:
            for axis, average in enumerate((left, right)):
                order = torch.argsort(torch.diag(bases[axis].T @ average @ bases[axis]), descending=True)
                second = second.index_select(axis, order)
                bases[axis] = torch.linalg.qr((average @ bases[axis][:, order]).float())[0].double()
        after.append(weight)
    return after


@pytest.mark.parametrize("shape", SHAPES)
def test_soap_is_its_authors(shape: tuple[int, int]) -> None:
    # the directions of a singular average are anybody's; where it has full rank both agree
    definition = soap_by_hand(shape, 3)
    ours, optimizer, weight = trained(rule("soap", precondition_frequency=3), shape)
    small = int(shape[0] > shape[1])
    assert_same_steps(ours[:1], definition[:1])
    state = optimizer.state[weight]
    basis = state[f"Q.{small}"]
    assert (basis.T @ basis - torch.eye(min(shape))).abs().max() < 1e-5
    square, _, _ = trained(rule("soap", precondition_frequency=3), (7, 7))
    assert_same_steps(square, soap_by_hand((7, 7), 3), 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_conda_is_its_authors(shape: tuple[int, int]) -> None:
    tall, betas, gap = shape[0] >= shape[1], (0.9, 0.99), 4
    weight, definition = random(*shape), []
    first = second = torch.zeros(min(shape), max(shape), dtype=torch.float64)
    for step, raw in enumerate(gradients(shape), start=1):
        gradient = raw.T if tall else raw
        first = 0.9 * first + 0.1 * gradient
        if step == 1 or step % gap == 0:
            basis = torch.linalg.svd(first.float(), full_matrices=False)[0].double()
        second = 0.99 * second + 0.01 * (basis.T @ gradient) ** 2
        update = 0.25 * basis @ adam(basis.T @ first, second, step, betas, 1e-8)
        weight = decayed(weight - RATE * (update.T if tall else update))
        definition.append(weight)
    ours, _, _ = trained(rule("conda", update_proj_gap=gap), shape)
    assert_same_steps(ours, definition, 1e-5)


def test_stable_spam_is_its_authors() -> None:
    shape, weight, definition = (4, 6), random(4, 6), []
    first = second = torch.zeros(shape, dtype=torch.float64)
    largest = norm_mean = norm_square = 0.0
    clipped = False
    for step, raw in enumerate(gradients(shape), start=1):
        gradient, weight = raw.clone(), decayed(weight)
        peak = float(gradient.abs().max())
        largest = 0.999 * largest + 0.001 * peak
        limit = largest / (1 - 0.999**step)
        for entry in range(gradient.numel()):
            value = float(gradient.view(-1)[entry])
            if abs(value) > limit:
                gradient.view(-1)[entry], clipped = value / peak * limit, True
        norm = math.sqrt(float((gradient**2).sum()))
        norm_mean, norm_square = 0.7 * norm_mean + 0.3 * norm, 0.9 * norm_square + 0.1 * norm**2
        gradient *= norm_mean / (1 - 0.7**step) / (math.sqrt(norm_square / (1 - 0.9**step)) + 1e-8) / norm
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        weight = weight - RATE * first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        definition.append(weight)
    assert clipped
    ours, _, _ = trained(rule("stable_spam"), shape)
    assert_same_steps(ours, definition)


@pytest.mark.parametrize("shape", SHAPES)
def test_alice_is_its_authors_in_the_subspace_that_it_has(shape: tuple[int, int]) -> None:
    ours, optimizer, parameter = trained(rule("alice"), shape)
    basis = optimizer.state[parameter]["U"]
    rank, rows = min(shape) // 4, shape[0]
    assert basis.shape == (rows, rank)
    assert (basis.T @ basis - torch.eye(rank)).abs().max() < 1e-6
    weight, definition, before = random(*shape), [], 0.0
    first = second = torch.zeros(rank, shape[1], dtype=torch.float64)
    energy = torch.zeros(shape[1], dtype=torch.float64)
    for gradient in gradients(shape):
        low = basis.T @ gradient
        first, second = 0.9 * first + 0.1 * low, 0.9 * second + 0.1 * low**2
        energy = 0.9 * energy + 0.1 * ((gradient**2).sum(0) - (low**2).sum(0))
        outside = math.sqrt(rows - rank) * (gradient - basis @ low) / energy.sqrt()
        norm = float(outside.norm())
        kept = min(norm, 1.01 * before) if before else norm
        outside, before = outside * (kept / norm), kept
        update = basis @ (first / (second.sqrt() + 1e-8)) + 0.4 * outside
        weight = decayed(weight) - 20 * RATE * 0.3 * update
        definition.append(weight)
    assert_same_steps(ours, definition, 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_tensors_and_numbers_that_a_safe_load_reads(name: str) -> None:
    run = Run.fresh(baselines.load(name)).train(3)
    values = [value for state in run.optimizer.state.values() for value in state.values()]
    assert all(isinstance(value, (Tensor, int, float)) for value in values)
    assert (
        any(WITH_OBJECTS.get(name, "") in state for state in run.optimizer.state.values()) or name not in WITH_OBJECTS
    )
    buffer = io.BytesIO()
    torch.save(run.optimizer.state_dict(), buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    assert len(saved["state"]) == sum(parameter.requires_grad for parameter in run.model.parameters())


def test_what_alice_draws_follows_from_the_seed_and_is_nobody_elses() -> None:
    drawn = []
    for seed, other in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(other)
        weight = nn.Parameter(random(32, 40))
        part = Alice(budget(seed=seed)).rule([{"params": [weight]}])
        weight.grad = random(32, 40, seed=1)
        state = torch.get_rng_state()
        part.step()
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(weight.detach().clone())
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("name", NAMES)
def test_without_the_library_nothing_is_begun(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ecospa.ConfigError, match=rf"{name} needs the package pytorch-optimizer .* pip install"):
        baselines.load(name)(budget()).prepare(tiny_gpt2(), CALIBRATION)
