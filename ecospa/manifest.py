"""Manifest of a saved folder, written last: it lists every file with its SHA-256 and the model's shape.

Exactly the files that it lists are loaded. A file that lies next to them, however its name looks, is the user's own and
is never read; a listed one that was changed, lost or replaced by a link is an error that names it. The manifest
carries a digest of itself, and `config.json` says that a manifest belongs to it, so that a lost one is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "ecospa.json"
VERSION = 2
MODEL, TRAINER_CHECKPOINT = "model", "trainer checkpoint"
CONFIG, INDEX = "config.json", "model.safetensors.index.json"
_DATA = (".safetensors", ".safetensors.index.json")
_SETTINGS = (CONFIG, "generation_config.json")
_MARK = "manifest"


class CheckpointError(ValueError):
    """A checkpoint that is damaged, edited, or of another model; the message names the file."""


@dataclass(frozen=True)
class Manifest:
    """Description of a saved folder, kept in it.

    Attributes:
        sha256: every file of the folder, relative to it, and the SHA-256 of its content.
        shape: what was cut: "widths", "heads" and "biases".
        holds: "model", or "trainer checkpoint" where optimizer and trainer state lie there as well.
        version: of the format; 1 had neither `holds` nor a digest of itself.
    """

    sha256: Mapping[str, str]
    shape: Mapping[str, Any] = field(default_factory=dict)
    holds: str = MODEL
    version: int = VERSION

    @property
    def model_files(self) -> tuple[str, ...]:
        """The listed files that make the model: weights, their index, and the configurations."""
        return tuple(name for name in self.sha256 if is_model_file(name))


def is_model_file(name: str) -> bool:
    """Return whether a file of this name, right inside the folder, is a part of a saved model."""
    return "/" not in name and (name in _SETTINGS or name.endswith(_DATA))


def write_manifest(
    folder: Path, files: Iterable[str], shape: Mapping[str, Any], holds: str = MODEL, mark: bool = True
) -> None:
    """Write `ecospa.json`, as the last file of a folder, in one step.

    Args:
        folder: what the manifest is about; its `config.json` is marked as one that a manifest belongs to.
        files: paths of its files relative to it, those of the model and whatever else is to be protected.
        shape: "widths", "heads" and "biases" of the model.
        holds: MODEL or TRAINER_CHECKPOINT.
        mark: False leaves its `config.json` as it is: a folder that was whole before does not need the manifest.

    Raises:
        CheckpointError: a file is missing or cannot be read, or the place cannot be written.
    """
    names = sorted({Path(name).as_posix() for name in files} - {MANIFEST})
    if mark and CONFIG in names:
        _mark(folder / CONFIG)
    content: dict[str, Any] = {"version": VERSION, "holds": holds, **shape}
    content["sha256"] = {name: sha256(listed(folder, name)) for name in names}
    content["digest"] = _digest(content)
    write_whole(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def renew_manifest(folder: str | Path) -> None:
    """Accept the present content of a folder's listed files, after an edit that was meant.

    Args:
        folder: a folder with a manifest.

    Raises:
        CheckpointError: it has no manifest, or a listed file is missing.
    """
    place = Path(folder)
    manifest = read_manifest(place)
    if manifest is None:
        raise CheckpointError(f"{place / MANIFEST} is missing; there is nothing to renew")
    write_manifest(place, manifest.sha256, manifest.shape, manifest.holds)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None for a plain one that never was ours.

    Raises:
        CheckpointError: it is damaged, of a later release, or lost.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        _refuse_lost(folder)
        return None
    content = read_json(path)
    version, digest = content.get("version"), content.get("digest")
    if version not in (1, VERSION) or type(version) is not int:
        raise CheckpointError(
            f"{path}: version is {version!r}; this release reads 1 to {VERSION}: install a later ecospa"
        )
    if (digest is not None or version > 1) and digest != _digest(content):
        raise CheckpointError(f"{path} was edited or damaged; copy the whole folder again, or save the model again")
    listing, holds = content.get("sha256"), content.get("holds", MODEL)
    if not isinstance(listing, dict) or not all(isinstance(value, str) for value in listing.values()):
        raise CheckpointError(f"{path}: sha256 must map names of files to digests; save the model again")
    shape: dict[str, Any] = {name: content[name] for name in ("widths", "heads", "biases") if name in content}
    return Manifest(listing, shape, str(holds), version)


def verify(folder: Path, model_only: bool = False) -> Manifest:
    """Check every file of a folder before anything is built from it.

    Args:
        folder: what a save or a trainer wrote, or a plain folder of transformers.
        model_only: check the model's own files alone, not those of optimizer and trainer.

    Returns:
        The manifest; for a plain folder one that lists what its names say.

    Raises:
        CheckpointError: names the file that is missing, truncated, edited, or a link that leaves the folder.
    """
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; give the folder that save_pretrained wrote")
    manifest = read_manifest(folder)
    if manifest is None:
        manifest = Manifest(dict.fromkeys(plain_files(folder), ""), version=0)
    else:
        for name in manifest.model_files if model_only else manifest.sha256:
            if sha256(listed(folder, name)) != manifest.sha256[name]:
                raise CheckpointError(
                    f"{folder / name} is truncated or was edited after it was saved; restore it, or call "
                    "ecospa.manifest.renew_manifest(folder) if the edit was meant"
                )
    weights = [name for name in manifest.model_files if name.endswith(".safetensors")]
    if not weights:
        raise CheckpointError(f"{folder} holds no *.safetensors file; it is no checkpoint, or its copy is incomplete")
    for name in weights:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{folder / name} cannot be read ({error}); it is truncated or no safetensors file"
            ) from error
    _check_indices(folder, manifest)
    return manifest


def plain_files(folder: Path) -> tuple[str, ...]:
    """The files of the model in a folder without manifest, by the names that transformers gives; no other is looked at.

    Args:
        folder: what transformers' own save wrote.

    Raises:
        CheckpointError: two models lie there, or a file is missing or outside of the folder.
    """
    single, index = folder / "model.safetensors", folder / INDEX
    if os.path.lexists(single) and os.path.lexists(index):
        raise CheckpointError(
            f"{folder} holds both {single.name} and {index.name}; delete the one that is not the model's"
        )
    names = {name for name in (single.name, *_SETTINGS) if os.path.lexists(folder / name)}
    names |= {INDEX, *_index_files(index)} if os.path.lexists(index) else set()
    return tuple(listed(folder, name).name for name in sorted(names))


@contextmanager
def only_listed(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """A folder of links to the listed files of the model and nothing else, for a reader that follows whatever it finds.

    Args:
        folder: the folder.
        manifest: of `verify`.
    """
    with tempfile.TemporaryDirectory(prefix="ecospa-") as place:
        for name in manifest.model_files:
            file = listed(folder, name).resolve()
            try:
                (Path(place) / name).symlink_to(file)
            except OSError:  # not everybody may make links everywhere
                shutil.copyfile(file, Path(place) / name)
        yield Path(place)


def listed(folder: Path, name: str) -> Path:
    """The path of a listed file, which must be a file of the folder itself.

    Args:
        folder: the folder.
        name: as the manifest has it.

    Raises:
        CheckpointError: the file is missing, or the name or a link leads out of the folder.
    """
    path = folder / name
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or not parts or "\\" in name:
        raise CheckpointError(f"{folder} lists {name!r}, which is no file inside it; the list was edited")
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; copy the whole folder")
    if not path.resolve().is_relative_to(folder.resolve()) and not _is_hub_cache(folder, path):
        raise CheckpointError(f"{path} is a link to a file outside its folder; copy the file itself there")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; copy the whole folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no valid JSON ({error}); it is truncated or was edited") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; it was edited")
    return content


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: whole and on the disk, or not at all; a link in its way is replaced, not followed.

    Args:
        path: the file.
        text: its content.

    Raises:
        CheckpointError: the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error.strerror or error})") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from error


def _digest(content: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _mark(path: Path) -> None:
    """Say in a configuration that knows of ecospa, or is ours alone, that a manifest belongs to it."""
    config = read_json(path)
    own = config.get("ecospa")
    # a dense transformers model stays a plain folder of transformers, which anybody may copy without the manifest
    if isinstance(own, dict) or "architectures" not in config:
        marked = {**config, "ecospa": {**(own if isinstance(own, dict) else {}), _MARK: MANIFEST}}
        if marked != config:
            write_whole(path, json.dumps(marked, indent=2) + "\n")


def _refuse_lost(folder: Path) -> None:
    """A folder that says it has a manifest has lost it; one that transformers wrote of a cut model never had one."""
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    own = config.get("ecospa")
    if isinstance(own, dict) and _MARK in own:
        raise CheckpointError(
            f"{folder / MANIFEST} is missing, and with it the list of what belongs to the folder with "
            f"{_names(folder)}; copy the whole folder again, or save the model again"
        )


def _names(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir() if is_model_file(path.name))[:6])


def _index_files(path: Path) -> list[str]:
    weights = read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise CheckpointError(f"{path}: weight_map must map names of weights to files; save the model again")
    return sorted(set(weights.values()))


def _check_indices(folder: Path, manifest: Manifest) -> None:
    inside = set(manifest.model_files)
    for name in sorted(inside):
        if name.endswith(".index.json"):
            strays = [file for file in _index_files(folder / name) if file not in inside]
            if strays:
                raise CheckpointError(f"{folder / name} points at {strays[0]!r}, which is no listed file of the folder")


def _is_hub_cache(folder: Path, path: Path) -> bool:
    """Return whether a link is of the hub's own cache: snapshots/COMMIT/NAME -> blobs/DIGEST of the same repository."""
    snapshots = folder.resolve().parent
    return snapshots.name == "snapshots" and path.resolve().parent == snapshots.parent / "blobs"
