"""Places of the data of lm-eval's tasks: the Hub, as the tasks say themselves, or Parquet files of the mirror.

The tasks' prompts and metrics stay those of the installed lm-eval; only the place of their data is replaced, through
the harness's own way of overriding a task's settings inside a group. Known are the tasks that the paper's comparisons
use; a task of lm-eval that is not listed here is read from the Hub.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data.source import (
    BoundSource,
    Corpus,
    MissingSourceError,
    Source,
    dataset_folder,
    files_key,
    missing_dataset,
)

GROUP = "zero_shot"
_SPLITS = {"training_split": "train", "validation_split": "validation", "test_split": "test"}
"""A mirror may lack a split that is not scored, and the harness would stumble over it."""


@dataclass(frozen=True)
class HarnessData:
    """Folder of a task inside lm-eval, and the Hub id and configuration of its data."""

    folder: str
    hub_id: str
    configuration: str


DATA = {
    "boolq": HarnessData("super_glue/boolq", "aps/super_glue", "boolq"),
    "piqa": HarnessData("piqa", "baber/piqa", "default"),
    "hellaswag": HarnessData("hellaswag", "Rowan/hellaswag", "default"),
    "winogrande": HarnessData("winogrande", "allenai/winogrande", "winogrande_xl"),
    "arc_easy": HarnessData("arc", "allenai/ai2_arc", "ARC-Easy"),
    "arc_challenge": HarnessData("arc", "allenai/ai2_arc", "ARC-Challenge"),
    "openbookqa": HarnessData("openbookqa", "allenai/openbookqa", "main"),
    "gsm8k": HarnessData("gsm8k", "openai/gsm8k", "main"),
    "bbh_cot_fewshot": HarnessData("bbh/cot_fewshot", "SaylorTwift/bbh", ""),
    **{
        # the harness reads a copy of the same rows, SaylorTwift/bbh; without a mirror it takes them from there
        f"bbh_fewshot_{name}": HarnessData("bbh/fewshot", "lukaemon/bbh", name)
        for name in ("boolean_expressions", "navigate", "object_counting")
    },
}


def missing(name: str, tier: str) -> str | None:
    """Return the reason the data of a task cannot be loaded, or None."""
    task = _known(name)
    return missing_dataset(f"lm-eval {name}", task.hub_id, task.configuration, tier)


def source(name: str) -> BoundSource:
    """The data of a task as a source that an experiment says it needs."""
    task = _known(name)
    said = Source(
        f"lm-eval {name}",
        load=lambda configuration, split, tier, train_bytes: Corpus((), ()),  # the harness reads them itself
        key=lambda configuration: files_key(dataset_folder(task.hub_id, configuration)),
        missing=lambda configuration, tier: missing(name, tier),
    )
    return said.bind(task.configuration)


def specification(name: str, tier: str) -> str | dict[str, Any]:
    """A task as the harness takes it: by its name, or as the only member of a group with the mirror's files in it.

    Raises:
        ValueError: a task that is not known here.
        MissingSourceError: its data are neither in the mirror nor to be had from the Hub.
    """
    reason = missing(name, tier)
    if reason is not None:
        raise MissingSourceError(reason)
    files = _files(name)
    if not files:
        return name
    kept = {split: [str(path) for path in paths] for split, paths in files.items()}
    override = {"task": name, "dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": kept}}
    absent = {setting: None for setting, split in _SPLITS.items() if split not in files}
    return {"group": f"{GROUP}_{name}", "task": [{**override, **absent}]}


def task_folders(names: tuple[str, ...]) -> list[str]:
    """Folders of lm-eval that hold these tasks: looking through all of its thousands would take longer than a run."""
    from lm_eval import tasks

    root = Path(tasks.__file__).parent
    return [str(root / folder) for folder in sorted({_known(name).folder for name in names})]


def fingerprint(names: tuple[str, ...]) -> str:
    """SHA-256 of the files of all tasks; the Hub's id stands for a task without files."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {_known(name).hub_id}\0".encode())
        for paths in _files(name).values():
            for path in paths:
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _known(name: str) -> HarnessData:
    if name not in DATA:
        raise ValueError(f"task is {name!r}; choose from {', '.join(DATA)}")
    return DATA[name]


def _files(name: str) -> dict[str, list[Path]]:
    """The mirror's Parquet files by split; none without a mirror."""
    folder = dataset_folder(_known(name).hub_id, _known(name).configuration)
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")) if folder is not None else []:
        splits.setdefault(path.name.partition("-")[0], []).append(path)
    return splits
