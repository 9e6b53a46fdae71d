"""Cost of shrinking to a training loop: nothing but a sum between events, and no second model at one."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ecospa
from ecospa.families import transformer_blocks
from ecospa.pairs import pair_matrices
from tests.model_zoo import build, inputs, logits

KINDS = ("gpt2", "llama-gqa", "bert", "timm-vit")
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "item", "is_nonzero", "equal", "unique")
"""Operations whose result the host waits for."""


class Watch(TorchDispatchMode):
    """Operations in their order, and the bytes that are alive at most, from those that were there at the start."""

    def __init__(self, there: list[Tensor]) -> None:
        super().__init__()
        self.operations: list[tuple[str, Tensor | None]] = []
        self._known: set[int] = set()
        self.live = self.peak = 0
        for tensor in there:
            self._watch(tensor)
        self.start = self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._watch(tensor)
        given = next((leaf.shape for leaf in tree_leaves(args) if isinstance(leaf, Tensor)), None)
        self.operations.append((func.overloadpacket.__name__, given))
        return result

    def named(self, name: str) -> list[Any]:
        """Shapes of the first inputs of all operations of a name."""
        return [shape for operation, shape in self.operations if operation == name]

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        number, size = storage._cdata, storage.nbytes()
        if number not in self._known:
            self._known.add(number)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, number, size)

    def _free(self, number: int, size: int) -> None:
        self._known.discard(number)
        self.live -= size


def training(kind: str, interval: int) -> tuple[nn.Module, Any, ecospa.CoupledSparsity]:
    """A model after one step of AdamW, with the gradients of the next."""
    model = build(kind).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    config = ecospa.EcoSpaConfig(
        target_size=0.5, target_scope="blocks", interval=interval, width_multiple=2, importance_threshold=0.5, top_k=1.0
    )
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    for _ in range(2):
        optimizer.zero_grad()
        logits(model, inputs(kind)).square().mean().backward()
        optimizer.step()
    return model, optimizer, sparsity


def held(model: nn.Module, optimizer: Any) -> list[Tensor]:
    """Weights, gradients, buffers and optimizer state."""
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [*model.parameters(), *model.buffers(), *gradients, *states]


@pytest.mark.parametrize("kind", KINDS)
def test_between_events_there_is_nothing_but_the_sum_of_squares(kind: str) -> None:
    model, optimizer, sparsity = training(kind, interval=1000)
    sparsity.after_backward()
    sparsity.after_step()
    named = dict(model.named_parameters())
    matrices = sum(len(list(pair_matrices(pair, named))) for pair in ecospa.coupled_pairs(model))
    with Watch(held(model, optimizer)) as watch:
        sparsity.after_backward()
    assert not [name for name, _ in watch.operations if name in WAITING]
    assert len(watch.operations) <= 8 * matrices
    assert watch.peak - watch.start <= 32 * matrices + max(p.shape[0] * 8 for p in model.parameters())
    before = len(watch.operations)
    with watch:
        sparsity.after_step()
    assert len(watch.operations) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_costs_nothing(kind: str) -> None:
    model, optimizer, sparsity = training(kind, interval=1)
    while not sparsity.finished:
        optimizer.zero_grad()
        logits(model, inputs(kind)).square().mean().backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
    with Watch(held(model, optimizer)) as watch:
        sparsity.after_backward()
        sparsity.after_step()
    assert not watch.operations


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_moves_each_tensor_once_and_holds_old_and_new_at_most(kind: str) -> None:
    model, optimizer, sparsity = training(kind, interval=1)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    sparsity.after_backward()
    optimizer.step()
    with Watch(held(model, optimizer)) as watch:
        sparsity.after_step()
    cut = [name for name, parameter in model.named_parameters() if parameter.shape != shapes[name]]
    assert len(sparsity.history) == 2 and cut
    moved = [shape for shape in watch.named("index_select") if shape in [shapes[name] for name in cut]]
    assert len(moved) == 4 * len(cut)  # weights, gradient and both moments
    assert watch.live < watch.start and watch.peak - watch.start <= watch.live


@pytest.mark.parametrize("kind", KINDS)
def test_block_by_block_no_second_model_is_held(kind: str) -> None:
    model, optimizer, _ = training(kind, interval=1)
    blocks = [sum(_bytes(one) for one in block.parameters()) for block in transformer_blocks(model).values()]
    plan = ecospa.plan_shrink(model, target_size=0.5, target_scope="blocks", width_multiple=2)
    with Watch(held(model, optimizer)) as watch:
        ecospa.apply_plan(model, plan, optimizer, by_block=True)
    assert len(blocks) > 1 and watch.live < watch.start
    assert watch.peak - watch.start <= 4 * max(blocks)  # weights, gradient and both moments of one block


@pytest.mark.parametrize("kind", KINDS[:2])
def test_an_event_without_memory_for_both_goes_block_by_block(kind: str, monkeypatch: Any, caplog: Any) -> None:
    _, optimizer, sparsity = training(kind, interval=1)
    whole = ecospa.sparsity.apply_plan

    def short_of_memory(*given: Any, by_block: bool = False, **options: Any) -> None:
        if not by_block:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        whole(*given, by_block=True, **options)

    monkeypatch.setattr(ecospa.sparsity, "apply_plan", short_of_memory)
    sparsity.after_backward()
    optimizer.step()
    sparsity.after_step()
    assert len(sparsity.history) == 2 and "block by block" in caplog.text


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@pytest.mark.gpu
def test_the_host_waits_for_nothing_between_events() -> None:
    model = build("llama-gqa").float().train().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    config = ecospa.EcoSpaConfig(target_size=0.5, target_scope="blocks", interval=1000, width_multiple=2)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    logits(model, {"input_ids": inputs("llama-gqa")["input_ids"].cuda()}).square().mean().backward()
    torch.cuda.set_sync_debug_mode("error")  # from here on waiting is an error
    try:
        for _ in range(3):
            sparsity.after_backward()
            optimizer.step()
            sparsity.after_step()
        with pytest.raises(RuntimeError, match="synchronizing"):
            next(model.parameters()).sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sparsity.step == sparsity.estimator.steps == 3
