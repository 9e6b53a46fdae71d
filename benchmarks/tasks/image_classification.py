"""Say what is in an image: VisionTransformers of timm, with its augmentation and, for a distilled DeiT, a teacher."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.data.augmentation import ImageExamples
from benchmarks.data.images import ImageSet, prepare_images
from benchmarks.experiment import Run
from benchmarks.metrics.accuracy import accuracy_metrics, classify
from benchmarks.models.teacher import Teacher, load_teacher
from benchmarks.models.vision import build_classifier, positions
from benchmarks.specs.training import TrainingSettings
from benchmarks.task import Task
from results.record import Metric


def load(run: Run, folder: Path) -> Task:
    """The images of a run, and a classifier for them.

    Raises:
        MissingSourceError: the images, or a published teacher, are not at hand.
        ValueError: model and data have other numbers of classes, or a teacher meets a model without its token.
    """
    settings: TrainingSettings = run.cell.settings
    spec, protocol, training = settings.model, settings.protocol, settings.training
    images = prepare_images(settings.data, protocol.split, run.cell.tier, folder)
    if spec.classes != images.classes:
        raise ValueError(f"classes is {spec.classes}; the source {settings.data.source!r} has {images.classes}")
    teacher = _teacher(settings, images, folder)
    examples = ImageExamples(images.train, images, spec.size, protocol.augmentation, run.seed, teacher)
    held_out = ImageExamples(images.evaluation, images, spec.size, protocol.augmentation, run.seed)

    def ready(model: nn.Module) -> None:
        _follow(model, teacher is not None)

    def build() -> nn.Module:
        model = build_classifier(spec, run.seed, training.device)
        ready(model)
        return model

    def evaluate(model: nn.Module) -> dict[str, Metric]:
        return accuracy_metrics(classify(model, held_out, 2 * training.micro_batch_size, training.device))

    return Task(
        build=build,
        examples=examples,
        tokens=positions(spec),
        evaluate=evaluate,
        fingerprint=_fingerprint(images, teacher),
        source=f"{settings.data.source} {settings.data.configuration}, training side",
        loss=step_loss,
        ready=ready,
    )


def step_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Mean cross entropy over the examples of an optimizer step; with a teacher the mean over both heads.

    Args:
        outputs: logits, float (batch, classes); a pair of them where a distillation token is trained.
        labels: probabilities, float (batch, classes), or (batch, 2, classes) with a teacher.
        num_items_in_batch: entries of the labels of the whole step, as the Trainer counts them; None for this batch's.

    Returns:
        This batch's part of the mean: the parts of a step add up to it.
    """
    logits = torch.stack(outputs, dim=1) if isinstance(outputs, tuple) else outputs
    losses = -(labels * logits.float().log_softmax(-1)).sum(-1)  # (batch,) or (batch, 2)
    entries = labels.numel() if num_items_in_batch is None else num_items_in_batch
    return losses.sum() * labels.shape[-1] / entries


def _teacher(settings: TrainingSettings, images: ImageSet, folder: Path) -> Teacher | None:
    """The teacher of a run; what it is trained on is augmented like the student's images, but never mixed."""
    spec, protocol, device = settings.model, settings.protocol, settings.training.device
    if protocol.teacher is None:
        return None
    if not hasattr(build_classifier(spec, seed=0, device="meta"), "head_dist"):
        raise ValueError(
            f"model name is {spec.name!r}, which has no distillation token for a teacher; take one of "
            "deit_{tiny,small,base}_distilled_patch16_224, or teacher=None"
        )
    plain = replace(protocol.augmentation, mixup=0.0, cutmix=0.0, smoothing=0.0)
    examples = ImageExamples(images.train, images, spec.size, plain, seed=0)
    identity = json.dumps([images.fingerprint, spec.size, asdict(plain)], sort_keys=True)
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    return load_teacher(protocol.teacher, examples, images.classes, fingerprint, folder, device)


def _fingerprint(images: ImageSet, teacher: Teacher | None) -> str:
    """Of the images, and of the teacher's weights where there is one."""
    if teacher is None:
        return images.fingerprint
    return hashlib.sha256(f"{images.fingerprint} {teacher.fingerprint}".encode()).hexdigest()


def _follow(model: Any, taught: bool) -> None:
    """Let a distilled DeiT give both heads while it trains; without a teacher it gives their mean, as in evaluation."""
    if hasattr(model, "set_distilled_training"):
        model.set_distilled_training(taught)
