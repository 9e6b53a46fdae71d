"""A training run as small as it can be: a two-layer GPT-2, a dozen AdamW steps with clipping, and a checkpoint."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import baselines
import ecospa
from baselines.calibration import Calibration
from baselines.method import Budget, TrainingMethod, TrainingState

VOCABULARY = 31
BUDGET = Budget(target_size=0.5, total_steps=12, start_step=2, end_step=10, interval=2, width_multiple=2, seed=3)


def tiny_gpt2(seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """GPT-2 of two layers, 32 wide, four heads of width 8."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        n_layer=2, n_embd=32, n_head=4, vocab_size=VOCABULARY, n_positions=16, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).to(dtype).train()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW as the experiments use it."""
    return torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)


def tokens(step: int) -> torch.Tensor:
    """Batch of a step: (2, 12) token numbers."""
    return torch.randint(1, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(1000 + step))


CALIBRATION = Calibration(
    tuple({"input_ids": tokens(step), "labels": tokens(step)} for step in range(1000, 1008)), "random tokens", 0
)


def largest_step(model: nn.Module, width_multiple: int) -> int:
    """Parameters of the largest single width step of any pair."""
    from ecospa.plan import index_parameters

    return max(width_multiple * index_parameters(model, pair) for pair in ecospa.coupled_pairs(model))


class Run:
    """One run: model, optimizer, method and the losses so far."""

    def __init__(self, method: TrainingMethod, model: Any, calibration: Calibration = CALIBRATION) -> None:
        self.method, self.model, self.calibration = method, model, calibration
        self.optimizer = method.build_optimizer(model) or adamw(model)
        self.step = 0
        self.losses: list[float] = []

    @classmethod
    def fresh(
        cls,
        kind: type[TrainingMethod],
        budget: Budget = BUDGET,
        model: Any = None,
        calibration: Calibration = CALIBRATION,
    ) -> Run:
        """A run at step 0; a method that can give one size only is asked for that."""
        model = tiny_gpt2() if model is None else model
        size = kind.only_size(model, budget.target_scope)
        method = kind(budget if size is None else replace(budget, target_size=size))
        other = method.prepare(model, calibration)
        return cls(method, model if other is None else other, calibration=calibration)

    def train(self, until: int) -> Run:
        """Optimizer steps up to and with number `until`."""
        while self.step < until:
            batch = tokens(self.step)
            loss = self.model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
            self.method.after_backward(self.state())
            self.optimizer.step()
            self.step += 1
            self.method.after_step(self.state())
            self.optimizer.zero_grad()
            self.losses.append(loss.item())
        return self

    def finish(self) -> Run:
        """End the run."""
        self.method.finish(self.state())
        return self

    def state(self) -> TrainingState:
        """Build the state that a hook sees now."""
        total = self.method.budget.total_steps
        return TrainingState(self.model, self.optimizer, self.step, total, self.calibration)

    def resumed(self, folder: Path) -> Run:
        """The run again in a new process: model, optimizer and method only through what a checkpoint holds."""
        self.method.save(self.model, folder)
        text = json.dumps(self.method.state_dict())
        method = type(self.method)(replace(self.method.budget))
        method.load_state_dict(json.loads(text))
        again = Run(method, method.load(folder, tiny_gpt2()).train())
        again.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        again.step, again.losses = self.step, list(self.losses)
        return again


@functools.cache
def finished(name: str) -> Run:
    """The whole run of a method, made once; a test may look at it and not change it."""
    return Run.fresh(baselines.load(name)).train(12).finish()


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Both models hold the same tensors, bitwise."""
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
