"""One file that takes runs to a machine without a network: code, data, and the packages that it may lack.

`python PACK.zip` there is all that is needed: unpack_and_run.py is the file's `__main__.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data.source import MIRROR_VARIABLE, folders_asked_for, mirror_folder
from benchmarks.execution import provenance, unpack_and_run
from benchmarks.execution.packages import CARRIED, HARNESS, Distribution, distributions
from benchmarks.experiment import Cell, Experiment, Tier

MEGABYTE = 1_000_000
_CODE = ("ecospa", "baselines", "benchmarks", "results")
_NO_CODE = {"records", "rendered", "__pycache__"}
_STORED = {".parquet", ".safetensors", ".npz", ".zip", ".gguf"}
"""Files that hardly get smaller."""
_ENTRY_BYTES = 200
"""Names and numbers of one file in the archive, about."""


@dataclass(frozen=True)
class Part:
    """One file of a pack: its place there, the file, and the part of the whole that it is counted with."""

    place: str
    path: Path
    group: str


@dataclass(frozen=True)
class Contents:
    """Contents of a pack, and the command that it carries out."""

    parts: tuple[Part, ...]
    order: Mapping[str, Any]

    def sizes(self) -> dict[str, int]:
        """Bytes of every group in the archive, the largest first."""
        sizes: defaultdict[str, int] = defaultdict(int)
        for part in self.parts:
            sizes[part.group] += _packed_size(part.path) + _ENTRY_BYTES
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def contents(
    experiments: Sequence[Experiment],
    cells: Iterable[Cell],
    tier: Tier,
    words: Sequence[str],
    records: Path,
    packages: Sequence[str] = CARRIED,
) -> Contents:
    """Choose what a pack holds.

    Records of the tier are in it: by them the other machine knows what is done, and how long runs take.

    Args:
        experiments: whose data it needs.
        cells: that it is to run, for the tokenizers that they name.
        tier: of the runs.
        words: of the command, without the program.
        records: folder of the store.
        packages: distributions to carry, with their pure-Python requirements.
    """
    sources = [one for experiment in experiments if tier in experiment.tiers for one in experiment.sources(tier)]
    harness = [HARNESS] if any(one.source.name.startswith(HARNESS) for one in sources) else []
    carried = distributions([*packages, *harness])
    parts = [*_code(), *_records(experiments, tier, records), *_data(experiments, cells, tier), *_packages(carried)]
    commit, dirty = provenance.commit()
    order = {
        "words": list(words),
        "origin": {"commit": commit, "dirty": dirty},
        "packages": {one.name: list(one.modules) for one in carried if one.files},
        "needed": sorted({module for one in carried if not one.files for module in one.modules[:1]}),
        "digest": _digest(parts),
    }
    return Contents(tuple(parts), order)


def write(chosen: Contents, target: Path, limit: int) -> int:
    """Write a pack.

    Args:
        chosen: from `contents`.
        target: the file, replaced if it is there.
        limit: most bytes.

    Returns:
        Its bytes.

    Raises:
        ValueError: it would be larger than the limit; names the largest parts.
    """
    sizes = chosen.sizes()
    total = sum(sizes.values())
    if total > limit:
        largest = "; ".join(f"{group} {megabytes(size)}" for group, size in list(sizes.items())[:8])
        raise ValueError(
            f"the pack would be {megabytes(total)}, and the limit is {megabytes(limit)} (--megabytes); "
            f"its largest parts: {largest}. Name fewer experiments with --only"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            archive.write(Path(unpack_and_run.__file__), "__main__.py", zipfile.ZIP_DEFLATED)
            archive.writestr(unpack_and_run.ORDER, json.dumps(chosen.order, indent=1))
            for part in chosen.parts:
                kind = zipfile.ZIP_STORED if part.path.suffix in _STORED else zipfile.ZIP_DEFLATED
                archive.write(part.path, part.place, kind)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def megabytes(size: float) -> str:
    """Bytes as people say them: 52.3 MB, 12 kB."""
    return f"{size / MEGABYTE:.1f} MB" if size >= MEGABYTE / 20 else f"{size / 1000:.0f} kB"


def _code() -> Iterator[Part]:
    for package in _CODE:
        for path in sorted((provenance.ROOT / package).rglob("*")):
            inside = path.relative_to(provenance.ROOT)
            if path.is_file() and not _NO_CODE & set(inside.parts):
                yield Part(f"{unpack_and_run.CODE}/{inside.as_posix()}", path, f"code of {package}")


def _records(experiments: Iterable[Experiment], tier: str, records: Path) -> Iterator[Part]:
    for experiment in experiments:
        for path in sorted((records / experiment.name).glob(f"{tier}-*.json")):
            place = f"{unpack_and_run.CODE}/results/records/{experiment.name}/{path.name}"
            yield Part(place, path, "records of the tier")


def _data(experiments: Iterable[Experiment], cells: Iterable[Cell], tier: Tier) -> Iterator[Part]:
    """Folders of the mirror that the sources of the experiments ask for, and the tokenizers of the cells."""
    mirror = Path(os.environ.get(MIRROR_VARIABLE, "")).expanduser()
    with folders_asked_for() as folders:
        for experiment in experiments:
            for bound in experiment.sources(tier):
                if bound.missing(tier) is None:
                    bound.source.key(bound.configuration)
        for name in {name for cell in cells for name in _tokenizers(cell.config)}:
            mirror_folder("tokenizers", name)
    for folder in sorted(folders):
        inside = folder.relative_to(mirror).as_posix()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            place = f"{unpack_and_run.DATA}/{path.relative_to(mirror).as_posix()}"
            yield Part(place, path, f"data {inside}")


def _tokenizers(config: Any) -> set[str]:
    """Every tokenizer that a configuration names, on whatever level."""
    if not isinstance(config, Mapping):
        return set()
    own = {value for key, value in config.items() if key == "tokenizer" and isinstance(value, str)}
    return own.union(*(_tokenizers(value) for value in config.values()))


def _packages(carried: Iterable[Distribution]) -> Iterator[Part]:
    for one in carried:
        for place, path in one.files.items():
            yield Part(f"{unpack_and_run.PACKAGES}/{one.name}/{place}", path, f"package {one.name}")


def _packed_size(path: Path) -> int:
    return path.stat().st_size if path.suffix in _STORED else len(zlib.compress(path.read_bytes()))


def _digest(parts: Iterable[Part]) -> str:
    """Digest of places, sizes and times: another one is another pack."""
    digest = hashlib.sha256()
    for part in parts:
        stat = part.path.stat()
        digest.update(f"{part.place}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]
