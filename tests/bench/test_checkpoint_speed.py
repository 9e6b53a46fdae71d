"""Saving and loading a model cut to half, beside transformers' own way with the whole one; ours checks every file."""

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
        "plain load": lambda: type(dense).from_pretrained(tmp_path / "plain"),
        "load": lambda: ecospa.from_pretrained(tmp_path / "half"),
    }
    seconds = interleaved(benchmark, actions)
    for what in ("save", "load"):
        tell(f"{kind}: {what} half / transformers, whole", seconds[what], seconds[f"plain {what}"], limit=5.0)
