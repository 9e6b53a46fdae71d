"""Cost of a run, before it starts: size, bytes and FLOPs over its whole schedule, from shapes alone.

Works on the meta device, so a model of 70 billion parameters needs no memory. Which pairs shrink first is decided by
gradients that do not exist yet; here all pairs are as important as each other and their scores are flat. Sizes follow
from the schedule and do not depend on it at the curve's pace; widths per layer are an even spread, not a promise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import nn

from ecospa.accounting import flops_per_index, parameters, state_tensors, training_flops
from ecospa.config import ConfigError, EcoSpaConfig
from ecospa.families import coupled_pairs
from ecospa.plan import axis_parameters, index_parameters
from ecospa.schedule import Schedule
from ecospa.selection import choose_widths
from ecospa.sparsifier import CoupledSparsifier
from ecospa.tying import tie, twins, untie

Precision = Literal["fp32", "bf16", "mixed"]
_WEIGHT_BYTES: dict[str, int] = {"fp32": 4, "bf16": 2, "mixed": 4}
_LARGEST = {"steps": 10**15, "batch": 10**9, "sequence": 10**9}
"""Larger numbers are slips of the keyboard, and their products no longer fit into a floating-point number."""
_MOST_EVENTS = 100_000
"""Events that a forecast follows: a thousand cost about a second, and a run has tens."""


@dataclass(frozen=True)
class Workload:
    """Batch, sequence length and number of steps that the model is trained on.

    Attributes:
        steps: optimizer steps of the run.
        batch: sequences or images per optimizer step.
        micro_batch: of them in one forward and backward pass; None is all of them.
        sequence: tokens per sequence (patches and class tokens for images).
        optimizer: "adamw", "adam", "amsgrad", "sgd_momentum" or "sgd".
        precision: "fp32"; "bf16" for weights, gradients and state alike; "mixed" for autocast over fp32 weights.

    Raises:
        ConfigError: a field is outside its range.
    """

    steps: int
    batch: int = 8
    micro_batch: int | None = None
    sequence: int = 512
    optimizer: str = "adamw"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= largest:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from 1 to {largest}")
        micro = self.micro_batch
        if micro is not None and (type(micro) is not int or micro < 1 or self.batch % micro):
            raise ConfigError(f"micro_batch is {micro!r}; it must divide batch, which is {self.batch}")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"precision is {self.precision!r}; choose one of {', '.join(get_args(Precision))}")
        state_tensors(self.optimizer)

    @property
    def at_once(self) -> int:
        """Sequences or images in one pass."""
        return self.batch if self.micro_batch is None else self.micro_batch


@dataclass(frozen=True)
class Stage:
    """The run from one size to the next.

    Attributes:
        step: optimizer steps done when it begins.
        steps: optimizer steps that it lasts.
        parameters: of the model at this stage.
        block_parameters: inside the transformer blocks.
        weights, gradients, optimizer: bytes.
        step_flops: FLOPs of one training step.
        widths: width of every pair.
    """

    step: int
    steps: int
    parameters: int
    block_parameters: int
    weights: int
    gradients: int
    optimizer: int
    step_flops: int
    widths: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Weights, gradients and optimizer state together."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Forecast:
    """A run in stages, the dense one first.

    Attributes:
        stages: in the order of the run.
        landed: whether the last stage is at its target.
        target: parameters in the target scope that were asked for.
    """

    stages: tuple[Stage, ...]
    landed: bool
    target: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return sum(stage.steps for stage in self.stages)

    @property
    def run_flops(self) -> int:
        """FLOPs of all training steps."""
        return sum(stage.steps * stage.step_flops for stage in self.stages)

    @property
    def flops_ratio(self) -> float:
        """FLOPs of the run over those of a dense run of equal steps."""
        return self.run_flops / (self.steps * self.stages[0].step_flops)

    @property
    def mean_bytes_ratio(self) -> float:
        """Bytes of weights, gradients and optimizer averaged over steps, over the dense model's."""
        held = sum(stage.steps * stage.bytes for stage in self.stages)
        return held / (self.steps * self.stages[0].bytes)


def forecast(model: nn.Module, config: EcoSpaConfig, workload: Workload) -> Forecast:
    """Foresee a run.

    Args:
        model: of a supported family, on any device; it is not changed.
        config: of the run.
        workload: steps, batch, optimizer, precision.

    Returns:
        Its stages; bytes are exact for the size of a stage, the size is within one width step of the run's.

    Raises:
        ConfigError: the target cannot be reached, or a field is outside its range.
        UnsupportedModelError: the model cannot be cut.
    """
    simulation, costs = Simulation(model, config), _Costs(model, workload)
    sizes = [(0, simulation.widths), *((step, simulation.widths) for step in simulation.events(workload.steps))]
    ends = [*(step for step, _ in sizes[1:]), workload.steps]  # an event after the last step begins a stage of none
    stages = tuple(costs.stage(step, end, widths) for (step, widths), end in zip(sizes, ends, strict=True))
    return Forecast(stages, simulation.landed, simulation.sparsifier.target_size)


class Simulation:
    """Widths over a run in which all pairs are equally important: those that have lost least are cut first.

    Args:
        model: the model; it is not changed.
        config: of the run.
        sparsifier: of a run that has begun; None for one that has not.

    Attributes:
        sparsifier: whose sizes and widths are counted with.
        size: parameters in the target scope.
    """

    def __init__(self, model: nn.Module, config: EcoSpaConfig, sparsifier: CoupledSparsifier | None = None) -> None:
        self.config = config
        pairs = coupled_pairs(model)
        self.sparsifier = CoupledSparsifier(model, config, pairs=pairs) if sparsifier is None else sparsifier
        self.schedule = Schedule(config, self.sparsifier.start_size, self.sparsifier.target_size)
        self.now = {pair.name: pair.width for pair in pairs}
        self.unit = {pair.name: pair.unit for pair in pairs}
        self.kinds = {pair.name: pair.kind for pair in pairs} if config.select_within == "kind" else None
        self.tied = twins(self.sparsifier.pairs(model, pairs)) if self.sparsifier.rule.tied else ()
        self.pairs = tie(self.tied, self.sparsifier.pair_widths(model, pairs))
        self.whole = {name: pair.width for name, pair in self.pairs.items()}
        self.size = self.sparsifier.size(model)

    @property
    def widths(self) -> dict[str, int]:
        """Width of every pair, in indices."""
        widths = untie(self.tied, {name: pair.width for name, pair in self.pairs.items()})
        return self.now | {name: round(width) * self.unit[name] for name, width in widths.items()}

    @property
    def landed(self) -> bool:
        """True if no step of any pair fits between the size and the target."""
        gap = self.size - self.sparsifier.target_size
        return not any(
            below is not None and (pair.width - below) * pair.unit_parameters <= gap
            for pair in self.pairs.values()
            for below in (pair.narrower(pair.width),)
        )

    def events(self, steps: int, step: int = 0) -> Iterator[int]:
        """Steps after `step`, and up to `steps`, at which something is cut; the widths are those after it.

        Raises:
            ConfigError: there are more events than can be followed.
        """
        cuts, followed = 0, 0
        if self.config.pace == "curve" and self.config.end_step is not None and not self.landed:
            lasts = min(steps, self.config.end_step) - max(step, self.config.start_step)
            if lasts // self.schedule.curve_interval > _MOST_EVENTS:  # known beforehand: nobody waits for the error
                raise self._too_many(steps)
        while not self.landed:
            step = self._next(step, cuts, steps)
            if step > steps:
                return
            followed += 1
            if followed > _MOST_EVENTS:
                raise self._too_many(steps)
            before = {name: pair.wanted for name, pair in self.pairs.items()}
            if self._cut(step):
                cuts += 1
                yield step
            elif self._stalled(step, before):
                return

    def _next(self, step: int, cuts: int, steps: int) -> int:
        """The next event after a step: the next multiple of the interval, or the end of the curve if that is sooner."""
        if self.config.pace == "paper":
            try:
                return self.schedule.next_event(step, self.size, cuts)
            except (OverflowError, ZeroDivisionError):  # a share that is cut of 1e-320: more events than numbers
                raise self._too_many(steps) from None
        return self.schedule.next_due(step)

    def _stalled(self, step: int, wanted: Mapping[str, float]) -> bool:
        """Return whether an event of the paper's pace has changed nothing at all, as then every later one will."""
        end = self.config.end_step
        same = self.config.pace == "paper" and (self._fixed or end is None or step >= end)
        return same and all(pair.wanted == wanted[name] for name, pair in self.pairs.items())

    @property
    def _fixed(self) -> bool:
        """True if events come at a fixed interval, and not spaced by how much they cut."""
        return self.config.pace == "curve" or self.config.interval is not None or self.config.end_step is None

    def _too_many(self, steps: int) -> ConfigError:
        follows = f"a run of {steps} steps has more than {_MOST_EVENTS} events, and a forecast follows no more"
        if self._fixed:
            interval, least = self.schedule.curve_interval, -(-steps // _MOST_EVENTS)
            return ConfigError(f"interval is {interval}, at which {follows}; give an interval of at least {least}")
        return ConfigError(
            f"top_k is {self.config.top_k} and importance_threshold is {self.config.importance_threshold}, with which "
            f"an event cuts so little that {follows}; raise top_k or lower importance_threshold"
        )

    def _cut(self, step: int) -> bool:
        land = self.schedule.must_land(step)
        curve = self.config.pace == "curve"
        goal = self.sparsifier.target_size if land or not curve else self.schedule.goal(step)
        goal = max(goal, self.sparsifier.target_size)
        importances = {name: 1 - pair.width / self.whole[name] for name, pair in self.pairs.items()}
        widths, wanted = choose_widths(
            self.pairs,
            importances,
            self.config.top_k,
            self.config.importance_threshold,
            max(0, self.size - goal),
            compound=land or curve,
            land=goal == self.sparsifier.target_size,
            kinds=self.kinds,
        )
        for name, pair in self.pairs.items():
            width = widths.get(name, pair.width)
            self.size -= (pair.width - width) * pair.unit_parameters
            flat = pair.retained[: width + 1]
            self.pairs[name] = replace(pair, width=width, wanted=wanted[name], retained=flat)
        return bool(widths)


class _Costs:
    """Memory and FLOPs of the model before any cut, and the part of one index of a pair's width in them."""

    def __init__(self, model: nn.Module, workload: Workload) -> None:
        self.workload = workload
        pairs = coupled_pairs(model)
        self.widths = {pair.name: pair.width for pair in pairs}
        self.parameters = {pair.name: index_parameters(model, pair) for pair in pairs}
        self.trained = {
            pair.name: sum(
                axis_parameters(parameter, axis)
                for axis in pair.axes
                if (parameter := model.get_parameter(axis.parameter)).requires_grad
            )
            for pair in pairs
        }
        batch, sequence = workload.batch, workload.sequence
        self.flops = {pair.name: 3 * flops_per_index(model, pair, batch, sequence) for pair in pairs}
        self.all_parameters = parameters(model)
        self.all_block_parameters = parameters(model, "blocks")
        self.all_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        self.all_flops = training_flops(model, batch, sequence)

    def stage(self, step: int, end: int, widths: Mapping[str, int]) -> Stage:
        """The run at these widths."""
        gone = {name: self.widths[name] - width for name, width in widths.items()}
        removed = _weighted(gone, self.parameters)
        trained = (self.all_trained - _weighted(gone, self.trained)) * _WEIGHT_BYTES[self.workload.precision]
        return Stage(
            step=step,
            steps=end - step,
            parameters=self.all_parameters - removed,
            block_parameters=self.all_block_parameters - removed,
            weights=(self.all_parameters - removed) * _WEIGHT_BYTES[self.workload.precision],
            gradients=trained,
            optimizer=trained * state_tensors(self.workload.optimizer),
            step_flops=self.all_flops - _weighted(gone, self.flops),
            widths=dict(widths),
        )


def _weighted(counts: Mapping[str, int], weights: Mapping[str, int]) -> int:
    return sum(count * weights[name] for name, count in counts.items())
