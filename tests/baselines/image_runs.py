"""Runs of S2ViTE on images, and the structures of a vision transformer by hand; shared by its tests."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from baselines.method import TrainingMethod, TrainingState
from baselines.svite import DropAndGrow, SViTE
from tests.baselines.runs import BUDGET, adamw
from tests.model_zoo import build, logits

KINDS = ("vit", "timm-vit")


def images(kind: str, step: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Four images of a step."""
    generator = torch.Generator().manual_seed(2000 + step)
    name = "x" if kind.startswith("timm") else "pixel_values"
    return {name: torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)}


def loss_of(model: nn.Module, kind: str, step: int) -> Tensor:
    """Cross entropy of the images of a step; their classes repeat."""
    dtype = next(model.parameters()).dtype
    return nn.functional.cross_entropy(logits(model, images(kind, step, dtype)), torch.tensor([0, 1, 2, 3]))


class ImageRun:
    """A dozen AdamW steps with clipping on images."""

    def __init__(self, method: TrainingMethod, model: nn.Module, kind: str) -> None:
        self.method, self.model, self.kind, self.step = method, model, kind, 0
        self.optimizer = method.build_optimizer(model) or adamw(model)
        self.losses: list[float] = []

    @classmethod
    def fresh(cls, kind: str, dtype: torch.dtype = torch.float32, **budget: Any) -> ImageRun:
        model, method = build(kind).to(dtype).train(), SViTE(replace(BUDGET, **budget))
        method.prepare(model, None)
        return cls(method, model, kind)

    @property
    def live(self) -> dict[str, Tensor]:
        assert isinstance(self.method.shrinker, DropAndGrow)
        return self.method.shrinker.dead.live

    def backward(self) -> None:
        loss = loss_of(self.model, self.kind, self.step)
        loss.backward()
        self.losses.append(loss.item())

    def train(self, until: int) -> ImageRun:
        while self.step < until:
            self.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
            self.update()
        return self

    def update(self) -> None:
        self.method.after_backward(self.state())
        self.optimizer.step()
        self.step += 1
        self.method.after_step(self.state())
        self.optimizer.zero_grad()

    def finish(self) -> ImageRun:
        self.method.finish(self.state())
        return self

    def state(self) -> TrainingState:
        return TrainingState(self.model, self.optimizer, self.step, 12)

    def resumed(self, folder: Path) -> ImageRun:
        """The run again, only through what a checkpoint holds."""
        self.method.save(self.model, folder)
        method = SViTE(replace(self.method.budget))
        method.load_state_dict(json.loads(json.dumps(self.method.state_dict())))
        again = ImageRun(method, method.load(folder, build(self.kind)).train(), self.kind)
        again.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        again.step, again.losses = self.step, list(self.losses)
        return again


def parts(model: nn.Module, kind: str) -> dict[str, dict[str, Any]]:
    """Modules by hand: structure name -> output projection, input rows by (parameter, offset), and width of one."""
    found = {}
    for number in range(2):
        if kind.startswith("timm"):
            block: Any = model.get_submodule(f"blocks.{number}")
            attention, mlp, output = f"blocks.{number}.attn", f"blocks.{number}.mlp.ffn", block.attn.proj
            inputs = [(block.attn.qkv, 0), (block.attn.qkv, 32), (block.attn.qkv, 64)]
        else:
            prefix = next(name for name, _ in model.named_modules() if name.endswith(f"layers.{number}"))
            block = model.get_submodule(prefix)
            attention, mlp, output = f"{prefix}.attention", f"{prefix}.mlp.ffn", block.attention.o_proj
            inputs = [(getattr(block.attention, name), 0) for name in ("q_proj", "k_proj", "v_proj")]
        found[attention] = {"output": output, "inputs": inputs, "width": 8, "count": 4}
        width = block.mlp.fc1.weight.shape[0]
        found[mlp] = {"output": block.mlp.fc2, "inputs": [(block.mlp.fc1, 0)], "width": 1, "count": width}
    return found


def columns(part: dict[str, Any], number: int) -> slice:
    return slice(number * part["width"], (number + 1) * part["width"])


def rows(part: dict[str, Any], number: int, offset: int) -> slice:
    return slice(offset + number * part["width"], offset + (number + 1) * part["width"])
