"""Provenance of a record: commit, versions, machine. Without it a number cannot be checked by anyone else."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.execution.unpack_and_run import ORIGIN

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    *("torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "safetensors", "lm_eval", "ecospa"),
)
_OUTPUT = (":(exclude)results/records", ":(exclude)paper_tables/rendered")
_UNKNOWN = "unknown"
_WITHOUT_EFFECT = ("experiments", "specs", "execution")
"""Folders of `benchmarks` that decide no result but through the configuration, which has a hash of its own."""


def commit() -> tuple[str, bool]:
    """Commit of the checkout, and whether files differ from it; ("unknown", True) outside a repository.

    Records and what is rendered from them do not count: every run adds one, and none of them changes a result. A pack
    says where it comes from.
    """
    if (ROOT / ORIGIN).exists():
        origin = json.loads((ROOT / ORIGIN).read_text(encoding="utf-8"))
        return origin["commit"], origin["dirty"]
    head = _git("rev-parse", "HEAD")
    if head is None:
        return _UNKNOWN, True
    return head, bool(_git("status", "--porcelain", "--", ".", *_OUTPUT))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result; packages that are not installed are left out.

    "code" is a digest of the sources that carry out a run: two records of one commit may differ in it, where the
    checkout was not clean, and two of different commits may agree.
    """
    installed = {"python": platform.python_version(), "code": code_digest()}
    for name in _PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


@functools.cache
def code_digest() -> str:
    """First 16 hexadecimal digits of the SHA-256 of all sources that decide a result, as this process found them."""
    digest = hashlib.sha256()
    for package in ("ecospa", "baselines", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            inner = path.relative_to(ROOT / package)
            if package == "benchmarks" and (len(inner.parts) == 1 or inner.parts[0] in _WITHOUT_EFFECT):
                continue
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def machine(device: str, threads: int) -> dict[str, Any]:
    """Kind and name of the device, cores, memory in bytes, threads used."""
    name, size = _processor(), memory()
    if device == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(0)
        name, size = properties.name, properties.total_memory
    return {
        "kind": device,
        "name": name,
        "cores": _cores(),
        "threads": threads,
        "memory": size,
        "system": f"{platform.system()} {platform.machine()}",
    }


def memory() -> int:
    """Memory of this machine in bytes; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system tells
        return 0


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def processor_field(name: str) -> str:
    """Return what Linux says of the first core under a name such as "flags"; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _processor() -> str:
    return processor_field("model name") or platform.processor() or platform.machine() or _UNKNOWN


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
