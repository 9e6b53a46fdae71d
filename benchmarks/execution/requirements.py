"""Limits of this machine and of shapes, reported before anything starts: memory, CUDA, a compiler, bfloat16, the Hub.

A plan asks, so nothing here imports torch: the CUDA driver is asked directly.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from benchmarks.data.source import BoundSource, from_hub
from benchmarks.execution import provenance
from benchmarks.experiment import Cell
from benchmarks.specs.multiples import shown, smallest_share
from benchmarks.specs.synthetic import ROUNDING, ModelShape

_ON_GPU = ("gpu", "paper")
_SECONDS = 5.0
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def needs_cuda(cell: Cell) -> bool:
    """Return True if a cell is for a CUDA device: its training says so, or else its tier does."""
    device = getattr(getattr(cell.settings, "training", None), "device", None)
    return cell.tier in _ON_GPU if device is None else device == "cuda"


def too_small(cell: Cell, peak: int | None) -> str | None:
    """Return the reason a cell does not fit this machine, or None.

    Args:
        cell: what is to be run.
        peak: bytes that the same cell has needed elsewhere, None where nobody has run it.
    """
    cuda = needs_cuda(cell)
    if cuda and not cuda_memory():
        return f"tier {cell.tier} needs a CUDA device and this machine has none; choose tier smoke or cpu"
    memory = max(cuda_memory()) if cuda else provenance.memory()
    if peak is None or not memory or peak <= memory:
        return None
    place = "its GPU" if cuda else "this machine"
    return f"an earlier run needed {gigabytes(peak)} of memory and {place} has {gigabytes(memory)}; use a larger one"


@cache
def cuda_memory() -> tuple[int, ...]:
    """Memory of every visible CUDA device in bytes; empty without one."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return ()
    count, device, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    sizes = []
    for number in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), number)
        driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        sizes.append(size.value)
    return tuple(sizes)


def no_compiler(cell: Cell) -> str | None:
    """Return the reason a cell that compiles its models cannot run on this machine, or None."""
    mode = getattr(getattr(cell.settings, "protocol", None), "mode", None)
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "cl" if os.name == "nt" else "g++")
    if mode != "compiled" or shutil.which(compiler):
        return None
    return f"compiled steps need a C++ compiler and {compiler} is not on the PATH; install it, or name another in CXX"


def no_bfloat16(cell: Cell) -> str | None:
    """Return the reason a cell of mixed precision cannot run on the CPU of this machine, or None."""
    protocol = getattr(cell.settings, "protocol", None)
    if getattr(protocol, "mode", None) != "autocast" or getattr(protocol, "device", None) != "cpu":
        return None
    flags = provenance.processor_field("flags").split()
    if not flags or "avx512bw" in flags:  # from there on oneDNN multiplies in bfloat16
        return None
    return (
        "mixed precision needs products in bfloat16, for which this CPU has no instructions (AVX-512): they would take "
        "many times as long as in float32; run it on another machine"
    )


def unreachable(cell: Cell) -> str | None:
    """Return the reason a model cannot be cut as far as a cell asks for, by its shapes alone, or None.

    Args:
        cell: of an experiment with models of random weights, and a method that rounds widths.
    """
    settings = cell.settings
    target, shape = getattr(settings, "target", None), getattr(settings, "model", None)
    if target is None or not isinstance(shape, ModelShape) or cell.method not in ROUNDING:
        return None
    multiple = getattr(getattr(settings, "protocol", None), "width_multiple", None)
    if multiple is None:  # a procedure that does not round by a rule of its cell
        return None
    least = smallest_share(shape, multiple)
    if target >= least:
        return None
    return (
        f"target {target:g} is out of reach: with widths that are {shown(multiple)}, at least {least:.4f} of the block "
        f"parameters of {shape.name} stay; give finer multiples by kind of pair"
    )


def no_hub(sources: Iterable[BoundSource], tier: str) -> str | None:
    """Return the reason data of the Hugging Face Hub cannot be had, or None: not needed, loaded before, or reachable.

    Args:
        sources: what an experiment needs; files of `benchmarks/data` on the Hub have a HUB_ID.
        tier: decides whether they come from the Hub.
    """
    if not from_hub(tier):
        return None
    modules = [sys.modules.get(getattr(bound.source.load, "__module__", "")) for bound in sources]
    wanted = [str(module.HUB_ID) for module in modules if module is not None and hasattr(module, "HUB_ID")]
    absent = [name for name in dict.fromkeys(wanted) if not _loaded_before(name)]
    if not absent:
        return None
    ways = "or point ECOSPA_DATA at a local mirror that holds it"
    off = [name for name in _OFFLINE if os.environ.get(name, "").lower() in ("1", "true", "yes", "on")]
    if off:
        return f"{', '.join(absent)} comes from the Hugging Face Hub and {off[0]} is set; unset it, {ways}"
    if not _hub_answers(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
        return (
            f"{', '.join(absent)} comes from the Hugging Face Hub, which does not answer; connect this machine, {ways}"
        )
    return None


def gigabytes(size: float) -> str:
    """Bytes as people say them: 0.8 GB, 141 GB."""
    return f"{size / 1e9:.1f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"


def _loaded_before(hub_id: str) -> bool:
    """Return True if a data set is in one of the caches of the Hub's libraries."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"datasets--{hub_id.replace('/', '--')}"
    read = Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")) / hub_id.replace("/", "___")
    return hub.is_dir() or read.is_dir()


@cache
def _hub_answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # it said something
    except (OSError, ValueError):
        return False
