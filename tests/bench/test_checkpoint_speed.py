"""Saving and loading a model cut to half, vs. transformers' own way with the dense one; ours checks every file."""

from __future__ import annotations

import copy

import pytest

import ecospa
from tests.bench.timing import MODELS, interleaved

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_smaller_model_is_saved_and_loaded_in_about_the_time_of_the_whole_one(benchmark, tell, kind, tmp_path):
    dense = MODELS[kind]()
    half = copy.deepcopy(dense)
    ecospa.apply_plan(half, ecospa.plan_shrink(half, 0.5, target_scope="blocks"))
    actions = {
        "plain save": lambda: dense.save_pretrained(tmp_path / "plain"),
        "save": lambda: ecospa.save_pretrained(half, tmp_path / "half"),
        "unverified save": lambda: ecospa.save_pretrained(half, tmp_path / "unverified", verify=False),
        "plain load": lambda: type(dense).from_pretrained(tmp_path / "plain"),
        "load": lambda: ecospa.from_pretrained(tmp_path / "half"),
    }
    seconds = interleaved(benchmark, actions)
    # a save reads back what it has written, runs it, and compares
    both = [save + load for save, load in zip(seconds["plain save"], seconds["plain load"], strict=True)]
    tell(f"{kind}: save half and verify / transformers, save and load whole", seconds["save"], both, limit=8.0)
    for what, plain in (("unverified save", "plain save"), ("load", "plain load")):
        tell(f"{kind}: {what} half / transformers, whole", seconds[what], seconds[plain], limit=5.0)
