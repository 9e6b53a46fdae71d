"""Digests that say which trained weights a run started from."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

PATTERN = "*.safetensors"


LOCAL = "sha256:"
"""How the fingerprint of weights in a folder begins; Hub ids do not."""


def fingerprint(folder: Path) -> str:
    """SHA-256 of the safetensors files of a folder, in the order of their names.

    Raises:
        ValueError: there is none.
    """
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise ValueError(
            f"weights is {str(folder)!r}, which holds no {PATTERN}; give the folder of a Hugging Face checkpoint"
        )
    return _digest(tuple((path, path.stat().st_mtime_ns) for path in files))


@functools.cache
def _digest(files: tuple[tuple[Path, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _ in files:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"{LOCAL}{digest.hexdigest()}"


def weights_digest(folder: Path, before: str = "") -> str:
    """SHA-256 of the files of weights in a folder, and of a text before them, such as the fingerprint of data."""
    digest = hashlib.sha256(before.encode())
    for path in sorted(folder.glob(PATTERN)):
        digest.update(path.read_bytes())
    return digest.hexdigest()
