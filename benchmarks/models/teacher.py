"""Hard distillation (DeiT, arXiv 2012.12877): a teacher decides about every training image, a token learns to follow.

The teacher is a published model of timm, or a convolutional one that is trained here on the same images, once, and kept
in the work folder; runs of all methods and seeds then learn from the same. Its weights are part of the data
fingerprint, because two trainings of it, on two machines, are two teachers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.data.cache import make_once
from benchmarks.data.source import MissingSourceError
from benchmarks.specs.vision import TeacherSpec

_LAYOUT = 1  # raise when the training of a teacher changes


class Teacher:
    """A model that is asked and not trained: images (batch, 3, size, size) -> logits (batch, classes), on the CPU."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.model, self.device = model.to(torch.device(device)).eval().requires_grad_(False), device

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of its weights, with their names."""
        digest = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            digest.update(name.encode() + b"\0" + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.to(self.device)).float().cpu()
        return logits


def load_teacher(
    spec: TeacherSpec, examples: Dataset[Any], classes: int, fingerprint: str, folder: Path, device: str
) -> Teacher:
    """The teacher of a run, from the work folder, or trained or fetched now.

    Args:
        spec: who it is.
        examples: what it is trained on, asked for in batches; `ImageExamples` without mixing.
        classes: of the data.
        fingerprint: of the data and of what is done to them.
        folder: of the caches.
        device: where it is trained and asked.

    Raises:
        MissingSourceError: published weights cannot be fetched.
        ValueError: timm has no such model, or it knows another number of classes.
    """
    import timm

    if not timm.is_model(spec.name.partition(".")[0]):
        raise ValueError(f"teacher name is {spec.name!r}; give a model of timm, such as 'regnety_160.deit_in1k'")
    if spec.steps == 0:
        return Teacher(_published(spec.name, classes), device)
    from safetensors.torch import load_model, save_model

    wanted = json.dumps({**asdict(spec), "classes": classes, "data": fingerprint, "layout": _LAYOUT}, sort_keys=True)
    path = folder / "teachers" / f"{spec.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}.safetensors"

    def make(partial: Path) -> None:
        model = _untrained(spec.name, classes).to(torch.device(device))
        _train(model, spec, examples, device)
        save_model(model, str(partial))

    make_once(path, make)
    model = _untrained(spec.name, classes)
    load_model(model, path)  # from the file even where it was trained just now: every run has the very same teacher
    return Teacher(model, device)


def _published(name: str, classes: int) -> nn.Module:
    import timm

    try:
        model: Any = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise MissingSourceError(
            f"teacher {name!r}: its weights cannot be had from the Hugging Face Hub ({error}). Either give this "
            "machine a network, or train a teacher on the run's own images: TeacherSpec(steps=...)"
        ) from error
    if model.num_classes != classes:
        raise ValueError(f"teacher {name!r} knows {model.num_classes} classes, the data have {classes}; take another")
    return model


def _untrained(name: str, classes: int) -> nn.Module:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return model


def _train(model: nn.Module, spec: TeacherSpec, examples: Any, device: str) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.learning_rate, weight_decay=0.05)
    draw, order = torch.Generator().manual_seed(0), torch.empty(0, dtype=torch.int64)
    model.train()
    for step in range(spec.steps):
        if len(order) < spec.batch_size:
            order = torch.randperm(len(examples), generator=draw)
        numbers, order = order[: spec.batch_size].tolist(), order[spec.batch_size :]
        batch = examples.__getitems__(numbers)
        images, targets = (torch.stack([example[name] for example in batch]).to(device) for name in ("x", "labels"))
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * 0.5 * (1 + math.cos(math.pi * step / spec.steps))
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
