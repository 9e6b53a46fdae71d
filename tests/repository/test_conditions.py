"""The conditions of tests/conftest.py hold: shapes are checked, errors stay the user's, nothing depends on chance."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import jaxtyping
import pytest
import torch

import ecospa
from tests.repository.source import ROOT


def test_shapes_of_arguments_are_checked() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="dim cols"):
        ecospa.importance.index_scores(torch.ones(2, 3), torch.ones(4, 2))


def test_shapes_in_frozen_dataclasses_are_checked() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="index"):
        ecospa.WeightAxis("weight", 0, torch.ones(2, 3))


@pytest.mark.parametrize("fields", [{"interval": 1.5}, {"top_k": "all"}, {"curve": "steep"}])
def test_a_wrong_field_raises_the_error_that_a_user_sees(fields: dict[str, object]) -> None:
    (name,) = fields
    with pytest.raises(ecospa.ConfigError, match=name):
        ecospa.EcoSpaConfig(**fields)


@pytest.mark.parametrize("turn", [1, 2])
def test_random_numbers_start_from_the_same_state(turn: int) -> None:
    assert random.random() == pytest.approx(0.8444218515250481)
    assert torch.rand(1).item() == pytest.approx(0.4962565899)


def test_one_thread_unless_asked_otherwise() -> None:
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def test_another_process_inherits_the_conditions() -> None:
    code = "import os, huggingface_hub.constants as hub; print(hub.HF_HUB_OFFLINE, os.environ['OMP_NUM_THREADS'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", os.environ["OMP_NUM_THREADS"]]
