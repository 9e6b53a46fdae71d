"""Checks of the command line, before anything is read or made: a wrong number is named with its range."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.execution.budget import RESERVE_SECONDS
from benchmarks.experiment import TIERS, Experiment, MethodRef

LARGEST_SEED = 2**31 - 1  # libraries want 32 bits, and runs add to it
_MOST_MINUTES = 100_000
_LARGEST = {"threads": 1024, "jobs": 256}

Value = TypeVar("Value")


def check_numbers(seeds: Sequence[int], threads: int | None, jobs: int | None) -> None:
    """Refuse numbers outside their ranges.

    Raises:
        ValueError: names field, value and range.
    """
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"seeds has {seed}; a seed is a whole number from 0 to {LARGEST_SEED}, such as 0")
    for name, value in (("threads", threads), ("jobs", jobs)):
        if value is not None and not 1 <= value <= _LARGEST[name]:
            raise ValueError(f"{name} is {value}; it must be at least 1 and at most {_LARGEST[name]}, or left out")


def check_minutes(minutes: float | None) -> None:
    """Refuse a time that no run fits into.

    Raises:
        ValueError: names the range.
    """
    least = 2 * RESERVE_SECONDS / 60
    if minutes is not None and not least <= minutes <= _MOST_MINUTES:
        raise ValueError(
            f"minutes is {minutes:g}; it must be at least {least:.2g} and at most {_MOST_MINUTES}, or left out"
        )


def check_tier(tier: str) -> None:
    """Refuse a tier that there is not.

    Raises:
        ValueError: names those that there are.
    """
    if tier not in TIERS:
        raise ValueError(f"tier is {tier!r}; choose from {', '.join(TIERS)}")


def check_folders(**folders: Path | None) -> None:
    """Refuse what is there and no folder; what is not there can be made.

    Raises:
        ValueError: names option and path.
    """
    for name, folder in folders.items():
        if folder is None:
            continue
        try:
            there = stat.S_ISDIR(os.stat(folder).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:  # too long a name, a byte of zero, no right to look
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"{name} is {str(folder)[:200]!r}, which is no path to use: {reason}") from error
        if not there:
            raise ValueError(f"{name} is {str(folder)!r}, which is a file; give a folder")


def methods_of(words: Sequence[str], experiments: Sequence[Experiment]) -> tuple[MethodRef, ...]:
    """The methods named, each once, under the names that they have in records.

    Only names that no experiment knows cost the import of torch.

    Raises:
        ValueError: there is no such method, or two are called the same.
    """
    known = {name for experiment in experiments for name in experiment.methods}
    references: list[MethodRef] = []
    for text in dict.fromkeys(part.strip() for word in words for part in word.split(",")):
        reference = MethodRef.parse(text)
        if reference.location is not None or reference.name not in known:
            from benchmarks.training.methods import named

            reference = named(reference, known)
        same = next(
            (one for one in references if one.name == reference.name and one.location != reference.location), None
        )
        if same is not None:
            raise ValueError(f"methods {same.location} and {reference.location} are both called {reference.name!r}; "
                             "rename one of them")  # fmt: skip
        references.append(reference)
    return each_once(references)


def each_once(values: Sequence[Value]) -> tuple[Value, ...]:
    """Values in their order, without repetitions: what is named twice is run once."""
    return tuple(dict.fromkeys(values))


def shares(text: str) -> tuple[float, ...]:
    """Shares from "0.8,0.5", each once.

    Raises:
        ValueError: one of them is no number in (0, 1].
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < share <= 1 for share in numbers):
        raise ValueError(f"sizes is {text!r}; give shares in (0, 1] with commas between them, such as 0.8,0.5")
    return each_once(numbers)
