"""Does an optimizer go on after a cut as if the removed entries had never been? Tried before the first step.

A fresh optimizer with the class and settings of the real one trains a few small matrices through steps, cuts on either
axis, and more steps. A second one trains the same matrices whole, with weight, gradient and state of the removed
entries held at zero, or with their state left alone. Equal to rounding is exact; a difference is told with its size;
what fails, or cannot be cut, is refused. The paper takes Adam's state along and says nothing about other optimizers.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.optimizer_twin import NoTwinError, settings, twin
from ecospa.state_layout import Cut, Layout, cut_entries, entries, learned, sliced, unknown_entry

STEPS = 11
CUTS = (4, 8)
"""Steps of a trial, and those after which it cuts."""

EXACT = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference, as a share of the distance that the weights moved, that rounding explains."""

_MATRICES = (((96, 64), 0), ((64, 96), 1), ((40, 72), 0), ((72, 40), 1))
_VECTORS = (((96,), 0),)
"""Shapes, tall and wide, and the axis that is cut: the longer one, until it is the shorter, or the shorter one."""

_ON_DEVICE = ("cuda", "xpu")

_BY_WIDTH = {"AdamP": 1e-3, "SGDP": 1e-3}
"""Optimizers that compare an angle with a bound that depends on the width: whether a cut moves a gradient across it is
a matter of luck, so that no short trial is sure to see the difference. Its size on a small language model."""


@dataclass(frozen=True)
class Verdict:
    """Result of a trial.

    Attributes:
        refusal: why the optimizer cannot go on after a cut, or None.
        difference: largest difference of a weight, as a share of the distance that the weights moved; 0 is exact.
        layout: what the state's entries are, for matrices that do not tell it themselves.
    """

    refusal: str | None = None
    difference: float = 0.0
    layout: Layout = field(default_factory=Layout)


class _Failure(Exception):
    """The trial cannot go on; the message says why, `after_cut` whether steps without a cut went well."""

    def __init__(self, message: str, after_cut: bool = False) -> None:
        super().__init__(message)
        self.after_cut = after_cut


def verdict_of(optimizer: Any) -> Verdict:
    """Verdict on an optimizer; tried once per class and settings, never on the optimizer itself.

    Args:
        optimizer: a torch optimizer, without accelerate's wrapper.
    """
    key = key_of(optimizer)
    if key not in _VERDICTS:
        _VERDICTS[key] = _judge(optimizer)
    return _VERDICTS[key]


_VERDICTS: dict[tuple[Any, ...], Verdict] = {}


def key_of(optimizer: Any) -> tuple[Any, ...]:
    """Class and settings of an optimizer, as far as they decide what a cut does.

    Numbers count by sign and by whether they reach one: schedules change learning rates and momenta at every step.
    """
    common, groups = settings(optimizer)
    device, dtype = _place(optimizer)
    kinds = {(_dimensions(group), _frozen(own)) for group, own in zip(optimizer.param_groups, groups, strict=True)}
    return type(optimizer), device.type, dtype, _frozen(common), frozenset(kinds)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return frozenset((name, _frozen(inner)) for name, inner in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(_frozen(inner) for inner in value)
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, float):
        return ("number", (value > 0) - (value < 0), abs(value) >= 1)
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return type(value).__name__, value


def _place(optimizer: Any) -> tuple[torch.device, torch.dtype]:
    first = next((p for group in optimizer.param_groups for p in group["params"]), torch.zeros(0, device="cpu"))
    return first.device if first.device.type in _ON_DEVICE else torch.device("cpu"), first.dtype


def _dimensions(group: dict[str, Any]) -> tuple[int, ...]:
    return tuple(sorted({parameter.ndim for parameter in group["params"]} & {1, 2}))


def _judge(optimizer: Any) -> Verdict:
    device, dtype = _place(optimizer)
    with _undisturbed(device):
        try:
            trial, cut, exact = _first_run(optimizer, device)
            difference = trial.difference(cut, "zeroed")
            if difference > exact:
                difference = min(difference, trial.difference(cut, "ignored"))
            if difference > exact and (name := trial.state_elsewhere()) is not None:
                return Verdict(f"it keeps state outside optimizer.state ({name}), which is not cut")
            if dtype not in EXACT:
                # halves have state of their own, such as what rounding left over
                _Trial(optimizer, device, dtype).run("cut")
        except (_Failure, NoTwinError) as failure:
            return Verdict(str(failure))
    difference = max(0.0 if difference <= exact else difference, _BY_WIDTH.get(type(optimizer).__name__, 0.0))
    return Verdict(None, difference, trial.layout)


def _first_run(optimizer: Any, device: torch.device) -> tuple[_Trial, list[Tensor], float]:
    """A trial with the run that cuts, and the difference that its rounding explains."""
    failure: _Failure | None = None
    # an interval of three may be impossible, then as it is; some take no float64
    for dtype, short in ((torch.float64, True), (torch.float64, False), (torch.float32, True)):
        try:
            trial = _Trial(optimizer, device, dtype, short)
            return trial, trial.run("cut"), EXACT[dtype]
        except _Failure as error:
            failure = failure or error
            if error.after_cut:
                break
    assert failure is not None
    raise failure


class _Toy:
    """A parameter of a trial, its gradients, and what its cuts leave."""

    def __init__(self, shape: tuple[int, ...], axis: int, generator: torch.Generator, like: Tensor) -> None:
        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, dtype=torch.float64, device="cpu").to(like)

        self.value, self.axis = normal(*shape), axis
        whole = (0.1 * normal(*shape) + 0.1 * normal(STEPS, *shape)).unbind()
        stays = torch.arange(shape[axis], device=like.device)
        self.kept: list[Tensor] = []
        self.gone: list[Tensor] = []
        self.gradients = {"cut": list(whole), "masked": list(whole)}
        for at in CUTS:
            order = torch.randperm(len(stays), generator=generator, device="cpu")
            self.kept.append(order[: (len(stays) * 3) // 4].sort().values.to(like.device))
            stays = stays[self.kept[-1]]
            gone = torch.ones(shape[axis], dtype=torch.bool, device=like.device)
            gone[stays] = False
            self.gone.append(gone.nonzero().flatten())
            for step in range(at, STEPS):
                self.gradients["cut"][step] = sliced(whole[step], axis, stays)
                self.gradients["masked"][step] = whole[step].index_fill(axis, self.gone[-1], 0)
        self.stays = stays


class _Trial:
    """The small parameters and their gradients, and runs over them."""

    def __init__(self, optimizer: Any, device: torch.device, dtype: torch.dtype, short: bool = True) -> None:
        self.optimizer, self.short, self.layout = optimizer, short, Layout()
        self._made: Any = None
        self._groups: list[dict[str, Any]] = []
        self._toys: list[_Toy] = []
        generator, like = torch.Generator().manual_seed(0), torch.zeros(0, device=device, dtype=dtype)
        tried = set()
        for group, own in zip(optimizer.param_groups, settings(optimizer)[1], strict=True):
            dimensions = _dimensions(group)
            if (kind := (dimensions, _frozen(own))) in tried or not dimensions:
                continue
            tried.add(kind)
            shapes = [one for ndim, some in ((2, _MATRICES), (1, _VECTORS)) if ndim in dimensions for one in some]
            self._groups.append({**own, "params": range(len(self._toys), len(self._toys) + len(shapes))})
            self._toys += [_Toy(shape, axis, generator, like) for shape, axis in shapes]
        if not self._toys:
            raise _Failure("it holds no matrix and no bias")

    def run(self, how: str) -> list[Tensor]:
        """Parameters after all steps: "cut", or whole with the state of what is removed "zeroed" or "ignored"."""
        parameters = [nn.Parameter(toy.value.clone()) for toy in self._toys]
        groups = [{**group, "params": [parameters[at] for at in group["params"]]} for group in self._groups]
        made = self._made = twin(self.optimizer, groups, self.short)
        random.seed(0)
        torch.manual_seed(0)
        for step in range(STEPS):
            cuts = sum(step >= at for at in CUTS)
            if step == CUTS[0] and how == "cut":
                self.layout = self._learn(parameters, made)
            for toy, parameter in zip(self._toys, parameters, strict=True):
                if step in CUTS and how == "cut":
                    self._cut(toy, parameter, cuts, made)
                # towards zero too: where a loss falls without end, learned step sizes (Prodigy) grow without end
                pull = 0.1 * parameter.detach()
                parameter.grad = pull + toy.gradients["cut" if how == "cut" else "masked"][step]
            if step in CUTS and how != "cut":
                self._mask(parameters, made, cuts, how)
                for toy, parameter in zip(self._toys, parameters, strict=True):
                    assert parameter.grad is not None
                    parameter.grad.index_fill_(toy.axis, toy.gone[cuts - 1], 0)
            _step(made, cuts > 0)
            if cuts and how != "cut":
                self._mask(parameters, made, cuts, how)
        return [parameter.detach() for parameter in parameters]

    def difference(self, cut: Sequence[Tensor], how: str) -> float:
        """Largest difference between the run that was cut and one on whole parameters, as a share of the movement."""
        largest = 0.0
        for toy, small, whole in zip(self._toys, cut, self.run(how), strict=True):
            whole, start = (one.index_select(toy.axis, toy.stays) for one in (whole, toy.value))
            if not bool(torch.isfinite(whole).all()) or not bool(torch.isfinite(small).all()):
                return float("inf")
            moved, apart = float((whole - start).abs().max()), float((small - whole).abs().max())
            largest = max(largest, apart / moved if moved else apart)
        return largest

    def state_elsewhere(self) -> str | None:
        """Name of an attribute of the optimizer that holds tensors as long as a parameter."""
        lengths = {size for toy in self._toys for size in (*toy.value.shape, toy.value.numel())}
        attributes: dict[str, Any] = vars(self._made)
        for name in attributes:
            if name in ("state", "param_groups", "defaults"):
                continue
            for entry in entries(attributes, name):
                if isinstance(entry.value, Tensor) and lengths & {*entry.value.shape, entry.value.numel()}:
                    return name
        return None

    def _learn(self, parameters: Sequence[Tensor], made: Any) -> Layout:
        shapes: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        for parameter in parameters:
            for entry in entries(made.state, parameter) if parameter in made.state else ():
                if isinstance(entry.value, Tensor):
                    shapes.setdefault(entry.name, []).append((tuple(parameter.shape), tuple(entry.value.shape)))
        return learned(shapes)

    def _cut(self, toy: _Toy, parameter: nn.Parameter, cuts: int, made: Any) -> None:
        cut: Cut = (toy.axis, toy.kept[cuts - 1])
        if (unknown := unknown_entry(made.state, parameter, cut, self.layout)) is not None:
            raise _Failure(unknown, after_cut=True)
        for container, key, value in tuple(cut_entries(made.state, parameter, cut, self.layout)):
            container[key] = value
        parameter.grad = None
        parameter.data = sliced(parameter.data, *cut)

    @torch.no_grad()
    def _mask(self, parameters: Sequence[Tensor], made: Any, cuts: int, how: str) -> None:
        for toy, parameter in zip(self._toys, parameters, strict=True):
            parameter.index_fill_(toy.axis, toy.gone[cuts - 1], 0)
            if how == "ignored" or parameter not in made.state:
                continue
            for entry in entries(made.state, parameter):
                # in factored entries nothing belongs to the removed ones alone
                if isinstance(entry.value, Tensor) and entry.value.shape == parameter.shape:
                    entry.value.index_fill_(toy.axis, toy.gone[cuts - 1], 0)


def _step(made: Any, after_cut: bool) -> None:
    arguments = inspect.signature(made.step).parameters.values()
    required = [one.name for one in arguments if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    if required:
        raise _Failure(f"its step needs {required[0]!r}")
    try:
        made.step()
    except Exception as error:  # foreign code: whatever it raises would have ended the training, and is told instead
        said = str(error).splitlines()[0][:160] if str(error) else ""
        what = "after a cut, its step fails" if after_cut else "its step fails on plain gradients"
        raise _Failure(f"{what} ({type(error).__name__}: {said})", after_cut) from error


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Random numbers, hooks on all optimizers and warnings stay as they are; gradients are recorded as in training."""
    state, numpy = random.getstate(), sys.modules.get("numpy")
    drawn = numpy.random.get_state() if numpy is not None else None
    torch_module = sys.modules[torch.optim.Optimizer.__module__]
    names = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")
    hooks: list[dict[Any, Any]] = [getattr(torch_module, name, {}) for name in names]
    kept = [dict(one) for one in hooks]
    devices = [device] if device.type != "cpu" else []
    try:
        for one in hooks:
            one.clear()
        with (
            torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"),
            torch.inference_mode(False),
            torch.compiler.set_stance("force_eager"),  # steps of these few shapes are not worth compiling
            torch.enable_grad(),
            # a default device costs time at every call, so it is set only where it is another
            contextlib.nullcontext() if torch.get_default_device() == device else torch.device(device),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, before in zip(hooks, kept, strict=True):
            one.update(before)
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(drawn)
