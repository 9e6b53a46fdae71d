"""The command line of the library: what a run would save before it starts, and whether a checkpoint is what it says.

`python -m ecospa plan MODEL` and `python -m ecospa verify FOLDER`.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from torch import nn

from ecospa.config import ConfigError, Curve, EcoSpaConfig, Pace, TargetScope
from ecospa.families import coupled_pairs
from ecospa.forecast import Precision, Workload, forecast
from ecospa.forecast_text import as_json, as_markdown
from ecospa.forecast_time import step_times
from ecospa.pairs import UnsupportedModelError
from ecospa.roofline import DEVICES
from ecospa.sparsifier import width_rule
from ecospa.verification import verify_folder
from ecospa.width_check import irregular_rule
from ecospa.width_rule import WidthRule
from ecospa.width_timing import device_rule

_FOUND, _USAGE = 1, 2
_ABOUT = "ecospa: transformers that become smaller while they train, by coupled sparsity."
_PLAN = "What a run would save, before it starts: from shapes alone, without weights and without a device."
_VERIFY = (
    "Whether a checkpoint is whole and can be trusted: every file against its manifest, every block cut on a copy in "
    "float64 and compared with the same entries at zero, every width against the config."
)
_EXIT = "Exit code: 0 all is well, 1 something was found, 2 a wrong argument."


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Obey one command.

    Returns:
        0; 1 where `verify` found something; 2 for a wrong argument, whose message names field, value, range and way
        out.
    """
    given = _parser().parse_args(arguments)
    try:
        if given.command == "verify":
            return _verify(given.folder)
        print(_plan(given.model, _plan_arguments(given)))
    except (ConfigError, UnsupportedModelError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _USAGE
    return 0


def _parser() -> ArgumentParser:
    from transformers import HfArgumentParser

    parser = ArgumentParser(prog="python -m ecospa", description=_ABOUT)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=HfArgumentParser)
    plan = commands.add_parser("plan", help=_PLAN, description=_PLAN, dataclass_types=PlanArguments)
    plan.add_argument("model", metavar="MODEL", help="folder with a config.json, Hugging Face id, or timm/NAME")
    check = commands.add_parser("verify", help=_VERIFY, description=_VERIFY, epilog=_EXIT)
    check.add_argument("folder", metavar="FOLDER", help="that ecospa.save_pretrained or a trainer wrote")
    return parser


def _plan_arguments(given: Namespace) -> PlanArguments:
    return PlanArguments(**{one.name: getattr(given, one.name) for one in fields(PlanArguments)})


def _verify(folder: str) -> int:
    from ecospa.checkpoint import CheckpointError
    from ecospa.manifest import MANIFEST

    if not Path(folder).is_dir():
        raise ConfigError(f"FOLDER is {folder!r}, which is no folder; give one that ecospa.save_pretrained wrote")
    try:
        found = verify_folder(folder)
    except CheckpointError as error:
        print(f"damaged: {error}")
        return _FOUND
    print(found)
    if not (Path(folder) / MANIFEST).is_file():
        print(f"no {MANIFEST} here: the files were not compared with checksums")
    return 0 if found.exact else _FOUND


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


if __name__ == "__main__":
    sys.exit(main())
