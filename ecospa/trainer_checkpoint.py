"""Checkpoints of a transformers Trainer: sealed when they are whole, and checked before anything is read from them.

A checkpoint is more than its model: optimizer, scheduler, random numbers and trainer state continue a run only
together. All of its files are listed with their SHA-256 in the manifest, which is written last, so a folder whose
writer died, or of which a file was lost or changed, is never taken for whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.config import ConfigError
from ecospa.folders import replacing
from ecospa.manifest import (
    CONFIG,
    MANIFEST,
    TRAINER_CHECKPOINT,
    CheckpointError,
    Manifest,
    is_model_file,
    plain_files,
    read_json,
    verify,
    write_manifest,
)
from ecospa.optimizers import names_of
from ecospa.saved_shape import Shape, model_shape, recorded_shape
from ecospa.wrappers import unwrapped

STATE, OPTIMIZER, SCHEDULER, SCALER = "trainer_state.json", "optimizer.pt", "scheduler.pt", "scaler.pt"
_RANDOM = re.compile(r"rng_state(_\d+)?\.pth")
_NAME = re.compile(r"checkpoint-([0-9]+)")
_SAMPLES = 16


class SkippedCheckpointWarning(RuntimeWarning):
    """A newer checkpoint is damaged or incomplete, and the run resumes from an older one."""


class UnverifiedCheckpointWarning(RuntimeWarning):
    """A checkpoint has no manifest of all its files: everything is there, but whether it is intact cannot be told."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole.

    Attributes:
        folder: where it lies.
        manifest: what was verified.
        state: content of its trainer_state.json.
    """

    folder: Path
    manifest: Manifest
    state: Mapping[str, Any]

    @property
    def shape(self) -> Shape:
        """Widths that were cut from its model."""
        if self.manifest.shape:
            return recorded_shape(self.manifest.shape, self.folder / MANIFEST)
        if (self.folder / CONFIG).is_file():
            return recorded_shape(read_json(self.folder / CONFIG).get("ecospa", {"widths": {}}), self.folder / CONFIG)
        # a Trainer's own save of a model that has no configuration: only the run knows the widths
        runs = [saved for saved in _callback_states(self.state).values() if saved and "history" in saved]
        widths = runs[0]["history"][-1]["widths"] if runs else {}
        return recorded_shape({"widths": widths}, self.folder / STATE)


def seal(folder: Path, model: nn.Module, mark: bool = True) -> None:
    """Write the manifest of a finished checkpoint: everything that lies in its folder.

    Args:
        folder: the checkpoint, complete.
        model: the model that was saved, compiled or not.
        mark: write into its config.json that a manifest belongs to it.
    """
    others = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    names = {*plain_files(folder), *(name for name in others if not is_model_file(name) and not name.startswith("."))}
    write_manifest(folder, names, model_shape(unwrapped(model)).as_json(), TRAINER_CHECKPOINT, mark=mark)


def whole(folder: Path) -> Checkpoint:
    """Check a checkpoint before anything is loaded from it.

    One without a manifest of all its files, as earlier releases and the plain Trainer leave it, is accepted with an
    UnverifiedCheckpointWarning where all files are there and can be read.

    Args:
        folder: the checkpoint.

    Raises:
        CheckpointError: a file is missing, damaged or not listed, or it was saved with save_only_model.
    """
    manifest = verify(folder)
    sealed = manifest.holds == TRAINER_CHECKPOINT
    there = set(manifest.sha256) if sealed else {path.name for path in folder.iterdir() if path.is_file()}
    _check_complete(folder, there)
    if sealed and SCALER not in there and (folder / SCALER).exists():
        raise CheckpointError(f"{folder / SCALER} is no file of this checkpoint; take it away")
    state = read_json(folder / STATE)
    if type(state.get("global_step")) is not int or not isinstance(state.get("stateful_callbacks"), dict):
        raise CheckpointError(f"{folder / STATE} lacks global_step or stateful_callbacks; it is no Trainer's state")
    if not sealed:
        if any(saved.get("sealed") for saved in _attributes(state).values()):
            raise CheckpointError(
                f"{folder / MANIFEST}, which listed every file, is missing or replaced; copy the whole checkpoint"
            )
        message = (
            f"{folder} has no manifest of all its files, so damage in them would not be noticed; checkpoints that "
            "EcoSpaTrainer writes from now on have one"
        )
        warnings.warn(message, UnverifiedCheckpointWarning, stacklevel=3)
    return Checkpoint(folder, manifest, state)


def newest_whole(output_dir: str | Path) -> Checkpoint:
    """The newest whole checkpoint of a run; a SkippedCheckpointWarning names each newer one and what is wrong with it.

    Args:
        output_dir: where a Trainer writes its checkpoint-N folders; whatever else lies there is not looked at.

    Raises:
        CheckpointError: there is none; the message lists those that were found and why each is not whole.
    """
    damaged = []
    for folder in reversed(_numbered(Path(output_dir))):
        try:
            found = whole(folder)
        except CheckpointError as error:
            damaged.append(f"{folder.name}: {error}")
            continue
        for reason in damaged:
            warnings.warn(f"{reason}; resuming from {found.folder}", SkippedCheckpointWarning, stacklevel=3)
        return found
    reasons = "; ".join(damaged) or "no folder of the name checkpoint-N lies there"
    raise CheckpointError(f"{output_dir} holds no whole checkpoint: {reasons}; start the run anew")


def chosen(resume: str | Path | bool | None, output_dir: str | Path) -> Checkpoint | None:
    """Find the checkpoint for `Trainer.train(resume_from_checkpoint=...)`: none for None or False, the newest for True.

    Args:
        resume: the argument.
        output_dir: the Trainer's.

    Raises:
        CheckpointError: the given checkpoint is not whole, or none is.
    """
    if resume is None or resume is False:
        return None
    return newest_whole(output_dir) if resume is True else whole(Path(resume))


def saved_run(callbacks: Any, name: str, step: int) -> dict[str, Any]:
    """State of the sparsity that a checkpoint's trainer state holds, with the configuration that it ran with.

    Args:
        callbacks: `stateful_callbacks` of the trainer state.
        name: class of the callback.
        step: of the checkpoint, for the message.

    Raises:
        ConfigError: the checkpoint was written without that callback.
    """
    saved = (callbacks if isinstance(callbacks, Mapping) else {}).get(name)
    attributes = saved.get("attributes") if isinstance(saved, Mapping) else None
    state = attributes.get("saved_state") if isinstance(attributes, Mapping) else None
    if not isinstance(saved, Mapping) or not isinstance(state, Mapping):
        raise ConfigError(
            f"training resumes at step {step} from a checkpoint that was written without {name}; start a new run from "
            "its weights instead"
        )
    arguments = saved.get("args")
    config = arguments.get("config") if isinstance(arguments, Mapping) else None
    return {"config": config, **state}  # states of earlier releases hold no configuration of their own


def check_resumed(model: nn.Module, optimizer: Any, run: Mapping[str, Any]) -> None:
    """Refuse to go on with weights that are not the checkpoint's, or with another kind of optimizer.

    The plain Trainer loads by the names of the modules, under which some families are not stored, and only warns.

    Args:
        model: what is about to be trained on.
        optimizer: its optimizer, with the state that was loaded.
        run: of `saved_run`; one of an earlier release says nothing about either.

    Raises:
        CheckpointError: the weights are others.
        ConfigError: the optimizer is another.
    """
    if run.get("weights") not in (None, fingerprint(model)):
        raise CheckpointError(
            "the model does not hold the weights of the checkpoint that training resumes from: the Trainer has not "
            "loaded them all; use EcoSpaTrainer, or give a plain Trainer ecospa.from_pretrained(checkpoint)"
        )
    if run.get("optimizer") not in (None, now := names_of(optimizer)):
        raise ConfigError(
            f"the optimizer is {now}, and the run that resumes was started with {run['optimizer']}, whose state it "
            "cannot use; resume with the same optimizer, or start a new run from the weights"
        )


@contextmanager
def model_folder(folder: Path) -> Iterator[Path]:
    """Yield where to write a model that replaces the one in a folder, as a whole, whatever else lies there.

    A mount point and the working folder of the process cannot be swapped: there the old model is taken away first, and
    the manifest that comes last says whether the new one is whole.

    Args:
        folder: the target; a link is followed.
    """
    target = folder.resolve()
    if target.is_dir() and (os.path.ismount(target) or Path.cwd().is_relative_to(target)):
        for path in sorted(target.iterdir(), key=lambda path: path.name != MANIFEST):
            if _is_of_a_model(path.name):
                path.unlink()
        yield target
    else:
        with replacing(target, _is_of_a_model) as side:
            yield side


def rotate(run_dir: Path, limit: int | None, kept: Iterable[str | Path | None]) -> None:
    """Delete the oldest checkpoints of a run.

    Args:
        run_dir: where its checkpoint-N folders lie.
        limit: how many may stay; None or 0 deletes nothing.
        kept: those that stay whatever their age: the one just written, and the best.
    """
    if limit is None or limit <= 0:
        return
    stay = {Path(folder).resolve() for folder in kept if folder}
    found = sorted((one for one in _numbered(run_dir) if one.is_dir()), key=lambda one: one.lstat().st_mtime_ns)
    excess = len(found) - max(limit, len(stay))
    for folder in [one for one in found if one.resolve() not in stay][: max(0, excess)]:
        shutil.rmtree(folder, ignore_errors=True)


@torch.no_grad()
def fingerprint(model: nn.Module) -> str:
    """SHA-256 over a few evenly spaced entries of every parameter: whether a model holds the weights of a checkpoint.

    Args:
        model: any model, on any device.
    """
    samples: list[Tensor] = []
    for parameter in unwrapped(model).parameters():
        flat = parameter.detach().flatten()
        samples.append(flat[:: max(1, flat.numel() // _SAMPLES)].double())
    return hashlib.sha256(torch.cat(samples).cpu().numpy().tobytes()).hexdigest()


def distinct_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model with every shared tensor once, under its first name, as safetensors wants it.

    Args:
        model: any model.
    """
    every: dict[str, Any] = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, value in every.items():
        first.setdefault(id(value), name)
    return {name: every[name].detach().contiguous() for name in first.values() if isinstance(every[name], Tensor)}


def _check_complete(folder: Path, there: set[str]) -> None:
    needed = {name: name in there for name in (OPTIMIZER, SCHEDULER, STATE)}
    needed["rng_state.pth"] = any(_RANDOM.fullmatch(name) for name in there)
    missing = [name for name, present in needed.items() if not present]
    if missing == [OPTIMIZER, SCHEDULER, "rng_state.pth"]:
        raise CheckpointError(
            f"{folder} was saved with save_only_model=True: without optimizer, scheduler and random numbers no run can "
            "go on from it; start a new one from its weights (ecospa.from_pretrained)"
        )
    if missing:
        raise CheckpointError(f"{folder / missing[0]} is missing; a resumed run would start it anew, so copy it again")


def _is_of_a_model(name: str) -> bool:
    return name == MANIFEST or is_model_file(name)


def _numbered(run_dir: Path) -> list[Path]:
    """Whatever has the name of a checkpoint, the newest last."""
    entries = run_dir.iterdir() if run_dir.is_dir() else iter(())
    return sorted(
        (entry for entry in entries if _NAME.fullmatch(entry.name)),
        key=lambda entry: (int(entry.name.removeprefix("checkpoint-")), entry.name),
    )


def _attributes(state: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Attributes of every callback that a trainer state holds; several of one class are a list."""
    return {name: saved["attributes"] for name, saved in _callbacks(state) if isinstance(saved.get("attributes"), dict)}


def _callback_states(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attributes.get("saved_state") for name, attributes in _attributes(state).items()}


def _callbacks(state: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, saved in state["stateful_callbacks"].items():
        for one in saved if isinstance(saved, list) else [saved]:
            if isinstance(one, dict):
                yield name, one
