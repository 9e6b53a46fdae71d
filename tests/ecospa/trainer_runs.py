"""Short Trainer runs of tiny models, for the tests of checkpoints: with data, so that every run is like the others."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

import ecospa
from tests.model_zoo import VOCABULARY, ZOO

gc.freeze()  # accelerate collects garbage at every start; what has been imported is none

STEPS = 6
CONFIG = ecospa.EcoSpaConfig(
    target_size=0.6, target_scope="blocks", width_multiple=2, pace="curve", start_step=1, end_step=5, interval=2
)


class Rows(torch.utils.data.Dataset):
    """Sixteen fixed sequences or images."""

    def __init__(self, image: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        self.image = image
        self.rows = torch.randn(16, 3, 8, 8, generator=generator) if image else torch.randint(
            1, VOCABULARY, (16, 8), generator=generator
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {"pixel_values": row, "labels": index % 5} if self.image else {"input_ids": row, "labels": row}


class Classifier(nn.Module):
    """A module of the user's own around a timm model; the scale of its logits is tied to another name."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(1))
        self.same = self.scale

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor, **ignored: Any) -> dict[str, torch.Tensor]:
        logits = self.inner(pixel_values) * self.scale
        return {"loss": nn.functional.cross_entropy(logits, labels) * self.same.squeeze(), "logits": logits}


def model_of(kind: str, seed: int = 0) -> nn.Module:
    """A dense model of the zoo; timm's stand in a module of the user's own, because a Trainer needs a loss."""
    torch.manual_seed(seed)
    model = ZOO[kind].build()
    return Classifier(model) if kind.startswith("timm") else model


def trainer_of(
    folder: Any,
    kind: str = "gpt2",
    model: Any = None,
    config: Any = CONFIG,
    estimator: Any = None,
    scorer: Any = None,
    **options: Any,
) -> Any:
    """An EcoSpaTrainer that saves after every second step."""
    defaults = {
        "output_dir": str(folder), "max_steps": STEPS, "per_device_train_batch_size": 4, "learning_rate": 1e-2,
        "logging_steps": 100, "save_strategy": "steps", "save_steps": 2, "report_to": "none", "use_cpu": True,
        "seed": 1, "disable_tqdm": True, "lr_scheduler_type": "cosine",
    }  # fmt: skip
    return ecospa.EcoSpaTrainer(
        model=model_of(kind) if model is None else model,
        args=TrainingArguments(**(defaults | options)),
        train_dataset=Rows(ZOO[kind].image),
        eval_dataset=Rows(ZOO[kind].image),
        ecospa_config=config,
        estimator=estimator,
        scorer=scorer,
    )


def trained(folder: Any, kind: str = "gpt2", resume: Any = None, **options: Any) -> Any:
    """A trainer after its run."""
    trainer = trainer_of(folder, kind, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(trainer: Any) -> list[torch.Tensor]:
    """Every tensor of a trainer's model."""
    return [value.detach().clone() for value in trainer._own_model().state_dict().values()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    """Return whether two models are bitwise equal."""
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
