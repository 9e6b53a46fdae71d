"""Exactness of cutting a block, checked by cutting a copy of it: for blocks with parts that no family knows.

The copy gets random weights, so that a difference is large where there is one, and is compared with its own twin whose
removed entries are zero: outputs, gradients, evaluation and training. A stock block is never run; what has been found
for another one holds as long as nothing in it is replaced.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.families import coupled_pairs, known_family, transformer_blocks, unsupported
from ecospa.pairs import CoupledPair, PairKind, unit_positions
from ecospa.plan import SparsityPlan
from ecospa.stock import fingerprint, foreign_parts
from ecospa.wrappers import unwrapped

Cutter = Callable[[nn.Module, SparsityPlan], None]
"""Cuts a model in place by a plan: `surgery.apply_plan`."""

TOLERANCE = 1e-5
"""Largest difference, as a share of the values, that rounding explains: norms and softmax go through float32."""
_SHARES = {PairKind.QK: 0.5, PairKind.VO: 0.75, PairKind.FFN: 0.6}  # apart, so that the widths of a head differ
_TOKENS = 7
_exact: weakref.WeakKeyDictionary[nn.Module, tuple[Hashable, ...]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class BlockCheck:
    """Result of cutting a copy of one block.

    Attributes:
        block: dotted name of the block.
        foreign: parts that its family does not know, "name: what it is".
        difference: largest difference between the cut and the zeroed copy, as a share of the largest value.
        problem: why the block cannot be cut, in words; empty where it can.
    """

    block: str
    foreign: tuple[str, ...]
    difference: float
    problem: str


def require_exact(model: nn.Module, cut: Cutter) -> None:
    """Refuse a model with a block whose cut would be another function.

    Blocks of stock parts are passed by what they are. Others are tried once, on random hidden states and weights of a
    copy in float64, one for all blocks that are made alike; a user's hooks see those states. A block whose weights
    are on the meta device has no function yet and is passed: it is tried when it is cut with weights.

    Args:
        model: a model of a supported family, cut or whole.
        cut: cuts the copies.

    Raises:
        UnsupportedModelError: names the first foreign part of such a block, the size of the difference and the way out.
    """
    tried: set[tuple[Hashable, ...]] = set()
    for name, block in transformer_blocks(unwrapped(model)).items():
        foreign = _foreign(block)
        if not foreign or any(parameter.is_meta for parameter in block.parameters()):
            continue
        seen = fingerprint(block, foreign)
        alike = (seen, *(tuple(parameter.shape) for parameter in block.parameters()))
        stateless = not any(True for part in foreign for _ in block.get_submodule(part).buffers())
        if _exact.get(block) != seen and not (stateless and alike in tried):
            found = check_block(name, block, cut)
            if found.problem:
                part, reason = next(iter(foreign.items()))
                raise unsupported(f"{name}.{part}".strip("."), f"{reason}, and {found.problem}", _WAY_OUT)
        tried.add(alike)
        _exact[block] = seen


_WAY_OUT = (
    "use the stock part, or write it so that every index of the hidden width and of the heads is treated alone, "
    "without parameters along them and without statistics over them"
)


def check_block(name: str, block: nn.Module, cut: Cutter) -> BlockCheck:
    """Cut a copy of one block and compare it with the zeroed copy, whether the block is stock or not.

    Args:
        name: dotted name of the block.
        block: a transformer block of a known family with weights; it is not changed.
        cut: cuts the copy.
    """
    foreign = _foreign(block)
    parts = tuple(f"{part or 'the block'}: {reason}" for part, reason in foreign.items())
    device = next(block.parameters()).device
    try:
        difference, problem = _compare(block, cut, torch.device("cpu"), torch.float64, TOLERANCE)
    except Exception as error:  # whatever a user's module raises when it runs alone
        if device.type == "cpu":
            return BlockCheck(name, parts, float("nan"), _could_not_run(error))
        try:  # kernels of a device may know neither the CPU nor float64
            difference, problem = _compare(block, cut, device, torch.float32, 1000 * TOLERANCE)
        except Exception as again:
            return BlockCheck(name, parts, float("nan"), _could_not_run(again))
    return BlockCheck(name, parts, difference, problem)


def _could_not_run(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0][:200]
    return f"a cut copy of the block does not run on random hidden states ({type(error).__name__}: {first})"


def _foreign(block: nn.Module) -> dict[str, str]:
    return foreign_parts(block, known_family(block).stock)


class _Alone(nn.Module):
    """A block outside its model, with a name for its pairs to begin with."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block


def _compare(
    block: nn.Module, cut: Cutter, device: torch.device, dtype: torch.dtype, tolerance: float
) -> tuple[float, str]:
    """Largest relative difference of outputs and gradients, and what is wrong in words."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad(), torch.device(device):
        torch.manual_seed(0)
        dense = _prepared(block, device, dtype)
        pairs = coupled_pairs(dense)
        plan = SparsityPlan.build(dense, {pair.name: _random_kept(pair) for pair in pairs})
        narrow = copy.deepcopy(dense)
        _exact[narrow.block] = fingerprint(narrow.block, _foreign(narrow.block))  # or the cut would come back here
        cut(narrow, plan)
        stays = _zero(dense, pairs, plan)
        width = _hidden_width(dense, pairs)
        states, probe = (torch.randn(2, _TOKENS, width, dtype=dtype, device=device) for _ in range(2))
        worst, problem = 0.0, ""
        for training in (False, True, False):  # the last one shows what was learned in training
            wanted, random = _run(dense, states, probe, training)
            found, _ = _run(narrow, states, probe, training)
            if training and random:  # other widths draw other numbers: nothing to compare
                continue
            for what in wanted:
                share = _difference(what, wanted, found, stays)
                if not share <= tolerance and not problem:
                    problem = _in_words(what, share, training, random)
                worst = share if not share <= worst else worst
        return worst, problem or _unread(narrow, pairs, states, probe)


def _in_words(what: str, share: float, training: bool, random: bool) -> str:
    mode = "training" if training else "evaluation"
    numbers = "; it draws random numbers" if random else ""
    return (
        f"a cut copy of the block is not the copy with the same entries at zero: in {mode} its {what} differ by "
        f"{share:.2g} of their size{numbers}"
    )


def _prepared(block: nn.Module, device: torch.device, dtype: torch.dtype) -> _Alone:
    """A copy with random weights and without dropout."""
    dense = _Alone(copy.deepcopy(block)).to(device, dtype)
    for module in dense.modules():
        own: Any = module
        own._compiled_call_impl = None
        if hasattr(module, "gradient_checkpointing"):
            own.gradient_checkpointing = False
        if isinstance(module, nn.modules.dropout._DropoutNd):
            own.p = 0.0
        for rate in ("attention_dropout", "drop_prob"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
        config = getattr(module, "config", None)
        if "flash" in (getattr(config, "_attn_implementation", None) or ""):
            own.config._attn_implementation = "sdpa"  # flash kernels know neither float64 nor the CPU
        if dtype == torch.float64 and getattr(config, "_experts_implementation", None) is not None:
            own.config._experts_implementation = "eager"  # grouped products do not know float64
    for name, parameter in dense.named_parameters():
        random = torch.randn(parameter.shape, dtype=dtype, device=device)
        if parameter.ndim > 1:
            random *= 1.5 * parameter.shape[0 if "Conv1D" in str(type(_holder(dense, name))) else -1] ** -0.5
        elif not name.endswith("bias"):
            random = 1 + 0.3 * random
        parameter.data = random
        parameter.requires_grad_(True)
    return dense


def _holder(model: nn.Module, parameter: str) -> nn.Module:
    return model.get_submodule(parameter.rpartition(".")[0])


def _random_kept(pair: CoupledPair) -> Tensor:
    count = max(1, int(pair.units * _SHARES[pair.kind]))
    units = [torch.randperm(pair.units, device="cpu")[:count].sort().values for _ in range(pair.groups)]
    return unit_positions(pair, torch.stack(units))


def _hidden_width(model: nn.Module, pairs: tuple[CoupledPair, ...]) -> int:
    axis = pairs[0].left[0]
    return model.get_parameter(axis.parameter).shape[1 - axis.axis]


@torch.no_grad()
def _zero(model: nn.Module, pairs: tuple[CoupledPair, ...], plan: SparsityPlan) -> dict[str, tuple[int, Tensor]]:
    """Set the removed entries to zero; per parameter the axis and the positions that stay."""
    stays: dict[str, tuple[int, Tensor]] = {}
    for pair in (pair for pair in pairs if pair.name in plan.kept):
        gone = torch.ones(pair.groups, pair.width, dtype=torch.bool, device="cpu").scatter(
            1, plan.kept[pair.name], False
        )
        for axis in pair.axes:
            parameter = model.get_parameter(axis.parameter)
            positions = axis.index[gone].flatten()
            parameter.index_fill_(axis.axis, positions.to(parameter.device), 0.0)
            _, left = stays.get(axis.parameter, (0, torch.arange(parameter.shape[axis.axis], device="cpu")))
            stays[axis.parameter] = (axis.axis, left[~torch.isin(left, positions)])
    return stays


def _run(model: _Alone, states: Tensor, probe: Tensor, training: bool) -> tuple[dict[str, dict[str, Tensor]], bool]:
    """Outputs and gradients, and whether random numbers were drawn."""
    model.train(training)
    torch.manual_seed(1)
    given = states.clone().requires_grad_()
    options = known_family(model.block).inputs(model.block, given)
    before = torch.get_rng_state()
    result = model.block(given, **options)
    output = result if isinstance(result, Tensor) else result[0]
    random = not torch.equal(before, torch.get_rng_state())
    named = {"hidden states": given, **dict(model.named_parameters())}
    if not output.requires_grad:
        return {"outputs": {"": output}}, random
    gradients = torch.autograd.grad((output * probe).sum(), list(named.values()), allow_unused=True)
    held = {name: value for name, value in zip(named, gradients, strict=True) if value is not None}
    return {"outputs": {"": output.detach()}, "gradients": held}, random


def _difference(
    what: str, wanted: dict[str, dict[str, Tensor]], found: dict[str, dict[str, Tensor]], stays: dict[str, Any]
) -> float:
    """Largest difference of the entries that both have, as a share of the largest value."""
    ours, theirs = found.get(what, {}), wanted[what]
    if set(ours) != set(theirs):
        return float("inf")
    scale, worst = 0.0, 0.0
    for name, value in theirs.items():
        if name in stays:
            axis, positions = stays[name]
            value = value.index_select(axis, positions.to(value.device))
        if value.shape != ours[name].shape:
            return float("inf")
        scale, gap = max(scale, float(value.abs().max())), float((value - ours[name]).abs().max())
        worst = gap if not gap <= worst else worst
    return worst / max(scale, torch.finfo(torch.float32).tiny)


@torch.no_grad()
def _unread(model: _Alone, pairs: tuple[CoupledPair, ...], states: Tensor, probe: Tensor) -> str:
    """Return what is wrong with a block that does not compute with its own weights, so that nothing was compared."""
    output = _run(model, states, probe, training=False)[0]["outputs"][""]
    for pair in pairs:
        model.get_parameter(pair.right[0].parameter).mul_(3.0)
        changed = _run(model, states, probe, training=False)[0]["outputs"][""]
        if torch.equal(output, changed):
            return f"a copy of the block does not compute with its own {pair.right[0].parameter.removeprefix('block.')}"
        output = changed
    return ""
