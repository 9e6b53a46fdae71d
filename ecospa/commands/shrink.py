"""shrink: one cut of a causal language model by a text, with a short recovery where steps are given."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecospa.accounting import parameters
from ecospa.calibration_text import importances, perplexity, token_sequences
from ecospa.checkpoint import save_pretrained
from ecospa.commands import Command
from ecospa.config import ConfigError, TargetScope
from ecospa.model_folder import copy_companions, load_model
from ecospa.one_shot import plan_shrink
from ecospa.surgery import apply_plan


@dataclass(frozen=True)
class ShrinkArguments:
    """Arguments of `shrink`."""

    target_size: float = field(default=0.8, metadata={"help": "share of the parameters that is left"})
    target_scope: TargetScope = field(default="blocks", metadata={"help": "share of all, or of the blocks alone"})
    top_k: float = field(default=1.0, metadata={"help": "share of the pairs that carry the cut, least important first"})
    width_multiple: int = field(default=8, metadata={"help": "widths stay multiples of this"})
    sequences: int = field(default=128, metadata={"help": "of the text at most; a quarter of them judges"})
    seq: int = field(default=256, metadata={"help": "tokens per sequence"})
    batch: int = field(default=4, metadata={"help": "sequences per pass"})
    steps: int = field(default=0, metadata={"help": "optimizer steps of the recovery"})
    learning_rate: float = field(default=1e-4, metadata={"help": "of the recovery (AdamW)"})
    seed: int = field(default=0, metadata={"help": "of the choice and the order of sequences"})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, cuda:1, ..."})
    json: bool = field(default=False, metadata={"help": "JSON instead of lines"})

    def __post_init__(self) -> None:
        """Refuse numbers that are out of range.

        Raises:
            ConfigError: names the argument, its value and the range.
        """
        for name, least in (("sequences", 2), ("seq", 2), ("batch", 1), ("steps", 0)):
            if (value := getattr(self, name)) < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}; it must be above 0")


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder or Hugging Face id of a causal language model")
    parser.add_argument("out", metavar="OUT", help="folder for the smaller model")
    parser.add_argument("--calibration", metavar="FILE", required=True, help="UTF-8 text to rank, recover and judge by")


def _run(given: Namespace) -> int:
    options = ShrinkArguments(**{one.name: getattr(given, one.name) for one in fields(ShrinkArguments)})
    model = _language_model(given.model).to(options.device)
    rows = token_sequences(given.model, given.calibration, options.sequences, options.seq, options.seed)
    judged, used = (part.to(options.device) for part in rows.tensor_split([max(1, len(rows) // 4)]))
    found: dict[str, Any] = {"dense_perplexity": perplexity(model, torch.split(judged, options.batch))}
    before = parameters(model, options.target_scope)
    shares = importances(model, _shown(torch.split(used, options.batch), "importance", options.json))
    plan = plan_shrink(
        model, options.target_size, target_scope=options.target_scope, top_k=options.top_k,
        width_multiple=options.width_multiple, importances=shares,
    )  # fmt: skip
    apply_plan(model, plan)
    found["cut_perplexity"] = perplexity(model, torch.split(judged, options.batch))
    if options.steps:
        _recover(model, used, options)
        found["recovered_perplexity"] = perplexity(model, torch.split(judged, options.batch))
    found["size"] = parameters(model, options.target_scope) / before
    save_pretrained(model.cpu(), given.out)
    found["copied"] = copy_companions(given.model, Path(given.out))
    print(json.dumps({**found, "options": asdict(options)}, indent=2) if options.json else _told(found, given.out))
    return 0


def _language_model(name: str) -> Any:
    model = load_model(name)
    if not type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        raise ConfigError(
            f"MODEL is {name!r}, a {type(model).__name__}; shrink calibrates causal language models: for others call "
            "ecospa.plan_shrink with importances of your own loss"
        )
    return model


def _recover(model: Any, used: Tensor, options: ShrinkArguments) -> None:
    """Train the cut model on, as any dense model is trained."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    generator = torch.Generator().manual_seed(options.seed)
    model.train()
    for _ in _shown(range(options.steps), "recovery", options.json):
        rows = used[torch.randint(len(used), (options.batch,), generator=generator).to(used.device)]
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def _shown(steps: Any, what: str, quiet: bool) -> Any:
    from tqdm import tqdm

    return tqdm(steps, desc=what, disable=quiet or None)  # None: not where no terminal looks


def _told(found: dict[str, Any], out: str) -> str:
    perplexities = [
        f"{name.removesuffix('_perplexity')} {value:.2f}" for name, value in found.items() if "perplexity" in name
    ]
    return "\n".join(
        [
            f"kept {found['size']:.1%}",
            f"perplexity on held-out text: {', '.join(perplexities)}",
            f"saved to {out}; load it with ecospa.from_pretrained({out!r}), or: ecospa export {out} OUT",
        ]
    )


COMMAND = Command(
    name="shrink",
    about="Cut a pretrained language model to a size at once, by the importance that a text gives its pairs; with "
    "--steps it is trained on for a while. A quarter of the text is held out to judge by.",
    arguments=_arguments,
    run=_run,
    options=ShrinkArguments,
    examples=("shrink gpt2 smaller --calibration text.txt --target-size 0.8 --steps 200",),
)
