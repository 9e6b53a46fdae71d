"""Conditions of every test: no network, one thread, fixed seeds, tensor shapes checked.

The settings are environment variables where that is possible, so that tests which start another process inherit them.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
# before torch is imported; the workers share the cores, and more threads than cores only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping
import pytest
from hypothesis import settings

import tests.shapes  # noqa: F401  the hook below finds it by name

if any(name.partition(".")[0] == "ecospa" for name in sys.modules):
    raise RuntimeError("ecospa was imported before tests/conftest.py; its shapes would go unchecked")
jaxtyping.install_import_hook("ecospa", "tests.shapes.check")

settings.register_profile("ecospa", derandomize=True, deadline=None, database=None, max_examples=25)
settings.load_profile("ecospa")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine lacks, with the reason."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    if item.get_closest_marker("data") is not None:
        data_folder()


def data_folder() -> Path:
    """Folder of the local mirror of the data sets; skips the test where none is named."""
    named = os.environ.get("ECOSPA_DATA")
    if not named:
        pytest.skip("needs the local mirror of the data sets: set ECOSPA_DATA to its folder")
    folder = Path(named).resolve()
    if not folder.is_dir():
        pytest.fail(f"ECOSPA_DATA is {named!r}, which is no folder; unset it or name the local mirror")
    return folder


@pytest.fixture
def ecospa_data() -> Path:
    """Folder of the local mirror of the data sets."""
    return data_folder()


@pytest.fixture(autouse=True)
def same_seed() -> None:
    """Every test starts from the same random state, whichever tests ran before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(0)
