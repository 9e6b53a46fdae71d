"""A save that is killed at any moment leaves one whole model: the old one or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and kills")
COUNT, LARGE = 3, 180
SHARDED = {"max_shard_size": "40KB"}
CASES = [
    (kind, size, options) for kind in ("gpt2", "llama") for size in ("small", "large") for options in ({}, SHARDED)
]
CASES += [("timm", size, {}) for size in ("small", "large")]


def kills(folder: Path, kind: str, size: str, options: dict[str, Any], count: int, two_renames: bool) -> dict[str, int]:
    asked = {"kind": kind, "size": size, "options": options, "count": count, "folder": str(folder / "model"), "seed": 1,
             "two_renames": two_renames}  # fmt: skip
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.ecospa.killed_saves", json.dumps(asked)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("two_renames", [False, pytest.param(True, marks=pytest.mark.kill)])
def test_a_killed_save_leaves_a_whole_model(tmp_path: Path, two_renames: bool) -> None:
    found = kills(tmp_path, "gpt2", "small", SHARDED, COUNT, two_renames)
    assert sum(found.values()) == COUNT


@pytest.mark.kill
@pytest.mark.parametrize(("kind", "size", "options"), CASES)
def test_many_killed_saves_leave_whole_models(tmp_path: Path, kind: str, size: str, options: dict[str, Any]) -> None:
    found = kills(tmp_path, kind, size, options, LARGE // len(CASES), two_renames=False)
    print(f"{kind} {size} {options}: {found}")
    assert sum(found.values()) == LARGE // len(CASES)
