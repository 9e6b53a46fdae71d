"""The configuration of a run: what its hash depends on, and what it does not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks.experiment import Cell, MethodRef, Run
from tests.benchmarks.tiny_runs import settings

CELL = Cell("tiny", "smoke", "dense", settings())


def test_the_hash_is_that_of_all_past_records() -> None:
    """A changed hash orphans every record: change this number only together with the meaning of a field."""
    assert CELL.config_hash == "b49fcd0d65120fc2"


def test_the_config_is_plain_json_with_the_parts_that_tables_group_by() -> None:
    config = CELL.config
    assert json.loads(json.dumps(config)) == config
    assert set(config) == {
        "experiment", "tier", "method", "method_config", "target", "model", "data", "protocol", "training",
    }  # fmt: skip
    assert set(config["protocol"]) == {"tokenizer", "sequence_length", "stride", "split", "bos"}


def test_the_seed_is_no_part_of_the_hash_and_names_the_folder() -> None:
    assert Run(CELL, 0).cell.config_hash == Run(CELL, 1).cell.config_hash
    assert Run(CELL, 0).folder_name != Run(CELL, 1).folder_name


@pytest.mark.parametrize("part", ["model", "data", "protocol", "training", "shrink"])
def test_every_setting_counts(part: str) -> None:
    base = CELL.settings
    old = getattr(base, part)
    for field in dataclasses.fields(old):
        value = getattr(old, field.name)
        changed = f"{value}x" if isinstance(value, str) else (value or 0) + 1
        other = dataclasses.replace(base, **{part: dataclasses.replace(old, **{field.name: changed})})
        assert dataclasses.replace(CELL, settings=other).config_hash != CELL.config_hash, field.name


def test_a_method_is_a_name_or_a_place() -> None:
    assert MethodRef.parse("ecospa") == MethodRef("ecospa")
    assert MethodRef.parse("package.module:Mine") == MethodRef("Mine", "package.module:Mine")
    for wrong in ("", ":Mine", "package.module:"):
        with pytest.raises(ValueError, match=r"my_package\.my_module:MyMethod"):
            MethodRef.parse(wrong)
