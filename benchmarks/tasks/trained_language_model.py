"""Go on with a language model that this suite has trained before: fine-tuning where no trained weights are at hand.

The dense model is trained once per seed and kept in the work folder; what is measured is what comes after. Settings and
seed decide it, and so they stand for it: the fingerprint of the data is that of the text alone, the same for all seeds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers import set_seed

import ecospa
from benchmarks.experiment import Run, RunContext
from benchmarks.pretrained.loading import dense_settings, trained_folder
from benchmarks.specs.failure_signatures import StressSettings
from benchmarks.specs.language import ProtocolSpec
from benchmarks.specs.pretrained import SEED_OFFSET, TrainedModel
from benchmarks.specs.training import TrainingSettings
from benchmarks.specs.width_sensitivity import LimitsSettings
from benchmarks.task import Task
from benchmarks.tasks import language_model


def load(run: Run, folder: Path) -> Task:
    """The text of a run, and the model that has been trained on it.

    Raises:
        MissingSourceError: the text is not at hand.
    """
    untrained = language_model.load(run, folder)
    place = trained_place(run.cell.settings, run.cell.tier, RunContext(folder, torch.get_num_threads()), run.seed)
    device = torch.device(run.cell.settings.training.device)

    def build() -> nn.Module:
        set_seed(run.seed)
        return ecospa.from_pretrained(place).to(device).train()

    return replace(untrained, build=build)


def trained_place(
    settings: TrainingSettings | LimitsSettings | StressSettings, tier: str, context: RunContext, seed: int
) -> Path:
    """Folder of the trained model of a run, made now if it has to be.

    Args:
        settings: of the run; its model is a TrainedModel, its text the one that the model is trained on.
        tier: of the run.
        context: its folder keeps the model.
        seed: of the run.
    """
    model, protocol = settings.model, settings.protocol
    assert isinstance(model, TrainedModel)  # what the protocol is for
    plain = ProtocolSpec(protocol.tokenizer, protocol.sequence_length, protocol.stride, protocol.split, protocol.bos)
    dense = dense_settings(model, settings.data, plain, model.pretraining)
    return trained_folder(dense, tier, context, seed + SEED_OFFSET)
