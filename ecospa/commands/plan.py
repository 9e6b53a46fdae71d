"""plan: savings of a run before it starts, from shapes alone."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field, fields

from torch import nn

from ecospa.commands import Command
from ecospa.config import ConfigError, Curve, EcoSpaConfig, Pace, TargetScope
from ecospa.families import coupled_pairs
from ecospa.forecast import Precision, Workload, forecast
from ecospa.forecast_text import as_json, as_markdown
from ecospa.forecast_time import step_times
from ecospa.roofline import DEVICES
from ecospa.sparsifier import width_rule
from ecospa.width_check import irregular_rule
from ecospa.width_rule import WidthRule
from ecospa.width_timing import device_rule


@dataclass(frozen=True)
class PlanArguments:
    """Arguments of `plan`; defaults are those of EcoSpaConfig where it has them."""

    target_size: float = field(default=0.5, metadata={"help": "share of the parameters that is left"})
    target_scope: TargetScope = field(default="parameters", metadata={"help": "share of all, or of the blocks alone"})
    steps: int = field(default=10_000, metadata={"help": "optimizer steps of the run"})
    batch: int = field(default=8, metadata={"help": "sequences or images per optimizer step"})
    micro_batch: int | None = field(default=None, metadata={"help": "of them in one pass; all by default"})
    seq: int = field(default=512, metadata={"help": "tokens per sequence"})
    dtype: Precision = field(default="fp32", metadata={"help": "fp32, bf16, or mixed (autocast over fp32 weights)"})
    optimizer: str = field(default="adamw", metadata={"help": "adamw, adam, amsgrad, sgd_momentum or sgd"})
    pace: Pace = field(default="curve", metadata={"help": "curve: a size over steps; paper: K and theta alone"})
    curve: Curve = field(default="cubic", metadata={"help": "shape of that size over steps"})
    top_k: float = field(default=0.30, metadata={"help": "K, share of the pairs that an event may cut"})
    importance_threshold: float = field(default=0.90, metadata={"help": "theta, share of the score an event keeps"})
    start_step: int | None = field(default=None, metadata={"help": "before the first event; 5 %% of the steps"})
    end_step: int | None = field(default=None, metadata={"help": "the target is reached by then; 75 %% of the steps"})
    interval: int | None = field(default=None, metadata={"help": "optimizer steps between two events"})
    width_multiple: str = field(default="8", metadata={"help": "widths stay multiples of this; auto: by the device"})
    device: str = field(default="none", metadata={"help": f"{', '.join(DEVICES)}; cpu or cuda (measured now); none"})
    json: bool = field(default=False, metadata={"help": "JSON instead of Markdown"})

    def config(self, model: nn.Module) -> EcoSpaConfig:
        """The configuration of the method for a model.

        Raises:
            ConfigError: a value is out of range, or too few steps leave no room between the first event and the last.
        """
        start = self.steps // 20 if self.start_step is None else self.start_step
        end = self.steps * 3 // 4 if self.end_step is None else self.end_step
        if self.end_step is None and end <= start:
            least = 2 if self.start_step is None else -(-4 * (start + 1) // 3)
            raise ConfigError(
                f"steps is {self.steps}; the target would be due at three quarters of them, step {end}, and the first "
                f"event comes after step {start}; give at least {least} steps, or an end_step"
            )
        return EcoSpaConfig(
            target_size=self.target_size,
            target_scope=self.target_scope,
            pace=self.pace,
            curve=self.curve,
            top_k=self.top_k,
            importance_threshold=self.importance_threshold,
            start_step=start,
            end_step=end,
            interval=self.interval,
            width_multiple=self._multiple(model),
        )

    def _multiple(self, model: nn.Module) -> int | WidthRule:
        if self.width_multiple == "auto":
            return device_rule(model, "cpu" if self.device == "cpu" else "cuda", measure=self.device in ("cpu", "cuda"))
        if not self.width_multiple.isdecimal():
            raise ConfigError(f"width_multiple is {self.width_multiple!r}; it must be a whole number, or auto")
        return int(self.width_multiple)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder with a config.json, Hugging Face id, or timm/NAME")


def _run(given: Namespace) -> int:
    print(_plan(given.model, PlanArguments(**{one.name: getattr(given, one.name) for one in fields(PlanArguments)})))
    return 0


def _plan(name: str, options: PlanArguments) -> str:
    from ecospa.architecture import empty_model, tokens_of_image

    model = empty_model(name)
    sequence = tokens_of_image(model) or options.seq
    workload = Workload(options.steps, options.batch, options.micro_batch, sequence, options.optimizer, options.dtype)
    config = options.config(model)
    rule = width_rule(model, config, pairs := coupled_pairs(model))
    if doubt := irregular_rule(rule, pairs, "cpu" if options.device == "cpu" else "cuda"):
        print(f"warning: {doubt}", file=sys.stderr)
    found = forecast(model, config, workload)
    times = None if options.device == "none" else step_times(model, found, workload, options.device)
    return (as_json if options.json else as_markdown)(name, config, workload, found, times)


COMMAND = Command(
    name="plan",
    about="What a run would save, before it starts: from shapes alone, without weights and without a device.",
    arguments=_arguments,
    run=_run,
    options=PlanArguments,
    examples=(
        "plan gpt2 --target-size 0.6 --steps 20000 --batch 64 --seq 1024 --device h100",
        "plan timm/deit_base_patch16_224 --target-scope blocks --json",
    ),
)
