"""Methods as readers see them: title, what they remove, group, colour and marker, and their order in tables.

A record says the first three itself, so a new method needs no line here. KNOWN is for the names that records already
carry: those of schema 1 say nothing of their method, and a method that many figures show has a look of its own.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType

from results import RunRecord

_GRID_POINT = re.compile(r"ecospa_k(\d+)_theta(\d+)")
_PROBED = re.compile(r"shape_(\d+)(_taylor|_units)?(_equal_flops|_average|_kept)?")
_OF_PROBED = {"_taylor": "Taylor", "_units": "units ranked", "_equal_flops": "equal FLOPs", "_average": "mean of three"}

CONTROL = "dense control"
"""Group of what has one size from the first step to the last."""


@dataclass(frozen=True)
class Method:
    """Display of a method in tables and plots.

    Attributes:
        title: its name for people.
        removes: structures (the model gets smaller), zeros (entries are zero and stored), or nothing.
        group: of methods that belong together and share panels.
        color: a name in `drawing.style.COLORS`; empty for one of the spare looks.
        marker: matplotlib's letter for it.
    """

    title: str
    removes: str = "structures"
    group: str = "custom"
    color: str = ""
    marker: str = ""


# In the order of the tables. Nobody can tell thirty colours apart, so no two methods share both colour and marker, and
# those of one group, which share a panel, have a colour each; only variants of one method (2:4, one cut) share theirs.
KNOWN = {
    "ecospa": Method("EcoSpa", "structures", "EcoSpa", "blue", "o"),
    "ecospa_own_pace": Method("EcoSpa, own pace", "structures", "EcoSpa", "sky", "D"),
    "ecospa_spaced": Method("EcoSpa, spaced cuts", "structures", "EcoSpa", "sky", "o"),
    "ecospa_tied": Method("EcoSpa, heads tied", "structures", "EcoSpa", "blue", "D"),
    "ecospa_at_start": Method("EcoSpa, one cut, early", "structures", "EcoSpa", "pink", "^"),
    "ecospa_at_end": Method("EcoSpa, one cut, late", "structures", "EcoSpa", "pink", "v"),
    "importance_gradient": Method("gradient", "structures", "importance metric", "sky", "^"),
    "importance_taylor": Method("Taylor, |w g|", "structures", "importance metric", "red", "D"),
    "importance_weight": Method("weight", "structures", "importance metric", "pink", "o"),
    "importance_activation": Method("activation", "structures", "importance metric", "grey", "^"),
    "importance_entropy": Method("attention entropy", "structures", "importance metric", "orange", "p"),
    "importance_random": Method("random", "structures", "importance metric", "green", "o"),
    "uncoupled": Method("uncoupled indices", "zeros", "selection ablation", "red", "s"),
    "uncoupled_importance": Method("uncoupled importance", "structures", "selection ablation", "orange", "^"),
    "uniform_pairs": Method("uniform pairs", "structures", "selection ablation", "orange", "s"),
    "random_pairs": Method("random, aligned", "structures", "selection ablation", "green", "v"),
    "random_indices": Method("random indices", "structures", "selection ablation", "green", "D"),
    "surgeon": Method("K-OBD", "structures", "structures by gradients", "pink", "p"),
    "llm_pruner": Method("LLM-Pruner, element", "structures", "structures by gradients", "red", ">"),
    "llm_pruner_vector": Method("LLM-Pruner, vector", "structures", "structures by gradients", "orange", "<"),
    "flap": Method("FLAP", "structures", "structures by activations or weights", "green", "P"),
    "wanda_sp": Method("Wanda-sp", "structures", "structures by activations or weights", "red", "X"),
    "movement": Method("movement", "structures", "structures by gradients", "green", "d"),
    "svite": Method("S2ViTE", "structures", "structures by gradients", "sky", "h"),
    "slicegpt": Method("SliceGPT", "structures", "structures by activations or weights", "orange", "D"),
    "shortgpt": Method("ShortGPT", "structures", "structures by activations or weights", "pink", "s"),
    "low_rank": Method("low rank", "structures", "structures by activations or weights", "sky", "P"),
    "torch_pruning": Method("Torch-Pruning", "structures", "structures by activations or weights", "grey", "h"),
    "sparsegpt": Method("SparseGPT", "zeros", "masks", "sky", "s"),
    "sparsegpt_2_4": Method("SparseGPT 2:4", "zeros", "masks", "sky", "v"),
    "wanda": Method("Wanda", "zeros", "masks", "red", "o"),
    "wanda_2_4": Method("Wanda 2:4", "zeros", "masks", "red", "v"),
    "magnitude": Method("magnitude mask", "zeros", "masks", "grey", "P"),
    "magnitude_global": Method("magnitude, global, gradual", "zeros", "masks", "grey", "D"),
    "magnitude_one_shot": Method("magnitude, one shot", "zeros", "masks", "orange", "o"),
    "magnitude_global_one_shot": Method("magnitude, global", "zeros", "masks", "green", "s"),
    "magnitude_2_4": Method("magnitude 2:4", "zeros", "masks", "orange", "v"),
    "galore": Method("GaLore", "nothing", "memory-efficient training", "red", "^"),
    "lora": Method("LoRA", "nothing", "memory-efficient training", "sky", ">"),
    "relora": Method("ReLoRA", "nothing", "memory-efficient training", "sky", "<"),
    "dense": Method("dense", "nothing", "dense control", "ink", "*"),
    "dense_aligned": Method("dense, aligned", "nothing", "dense control", "ink", "s"),
    "dense_twice_steps": Method("dense, twice the steps", "nothing", "dense control", "ink", "P"),
    "dense_average_size": Method("dense of average size", "nothing", "dense control", "ink", "d"),
    "small_dense": Method("small dense", "nothing", "dense control", "grey", "X"),
    "small_dense_equal_flops": Method("small dense, equal FLOPs", "nothing", "dense control", "grey", "d"),
    "final_shape": Method("final shape, fresh", "nothing", "dense control", "sky", "*"),
    "final_shape_other_seed": Method("final shape of another seed", "nothing", "dense control", "sky", "X"),
    "final_shape_equal_flops": Method("final shape, equal FLOPs", "nothing", "dense control", "sky", "d"),
}

_DESCRIBED: ContextVar[Mapping[str, Method]] = ContextVar("described", default=MappingProxyType({}))
_UNKNOWN: ContextVar[frozenset[str]] = ContextVar("unknown", default=frozenset())


@contextmanager
def described_by(records: Iterable[RunRecord]) -> Iterator[None]:
    """Know, inside, the methods that `records` describe; the newest record of a name decides.

    Tables and plots ask for a title by name in some sixty places; what they are made from does not change on the way.
    """
    by_age = sorted(records, key=lambda record: record.id)
    found = {
        record.method: Method(info.title, info.removes, info.group)
        for record in by_age
        if (info := record.method_info) is not None
    }
    names = {record.method for record in by_age} - KNOWN.keys()
    tokens = _DESCRIBED.set(found), _UNKNOWN.set(frozenset(name for name in names if k_and_theta(name) is None))
    try:
        yield
    finally:
        _DESCRIBED.reset(tokens[0])
        _UNKNOWN.reset(tokens[1])


def method(name: str) -> Method:
    """Return how a method is shown: as KNOWN says, else as the records do, else by its bare name."""
    if name in KNOWN:
        return KNOWN[name]
    if (found := k_and_theta(name)) is not None:
        return Method("K {}%, theta {}%".format(*found), group="EcoSpa")
    if (title := from_probe(name)) is not None:
        return Method(title, "structures" if name.endswith("_kept") else "nothing", "shape from a probe")
    return _DESCRIBED.get().get(name) or Method(name)


def spare_place(name: str, places: int) -> int:
    """Return which of so many spare looks an unknown method has: by its name, or the next one where that is taken.

    Taken, that is, by another unknown method of the records (`described_by`): up to `places` of them share no look.
    """
    found: dict[str, int] = {}
    for other in sorted({*_UNKNOWN.get(), name}):
        wanted = zlib.crc32(other.encode()) % places
        in_turn = ((wanted + step) % places for step in range(places))
        found[other] = next((place for place in in_turn if place not in found.values()), wanted)
    return found[name]


def label(name: str) -> str:
    """Return the name of a method for people."""
    return method(name).title


def removes(name: str) -> str:
    """Return what a method removes: structures, zeros or nothing."""
    return method(name).removes


def rank(name: str) -> tuple[int, str]:
    """Return the place of a method in a table: the known ones first, then the others by name."""
    return (list(KNOWN).index(name) if name in KNOWN else len(KNOWN), name)


def from_probe(name: str) -> str | None:
    """Return the title of a method whose shape, or whose start, is that of a probe over a share of the steps."""
    found = _PROBED.fullmatch(name)
    if found is None:
        return None
    what = "weights" if found[3] == "_kept" else "shape"
    return ", ".join(
        [f"{what} of a {found[1]}% probe", *(_OF_PROBED[p] for p in found.groups()[1:] if p in _OF_PROBED)]
    )


def k_and_theta(name: str) -> tuple[str, str] | None:
    """Return K and theta in percent, where a method is EcoSpa at one point of a grid over both."""
    found = _GRID_POINT.fullmatch(name)
    return None if found is None else (found[1], found[2])
