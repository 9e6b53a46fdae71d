"""Made-up records and what they render to: made once for all tests that only look at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from paper_tables import render
from results import MethodInfo, RunRecord, Store
from tests.results.factory import fill, filled, make_record

CUSTOM_METHOD, CUSTOM_TITLE = "my_own_method", "My own method"


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, ...]:
    """Every experiment of the smoke tier."""
    return tuple(filled(tmp_path_factory.mktemp("made_up")).records(status=None))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Every experiment of the smoke tier, a failed run, a custom method, and a run of another tier."""
    made = Store(tmp_path_factory.mktemp("records"))
    fill(made)
    made.append(make_record(9000, method="magnitude", status="failed", error="Traceback\nMemoryError: <full>"))
    own = {"method": CUSTOM_METHOD, "method_info": MethodInfo(CUSTOM_TITLE, "structures", "mine")}
    metrics = {"perplexity": 70.0, "block_parameters_nonzero": 3e5}
    made.append(make_record(9001, metrics, device={"kind": "cpu"}, dirty=True, **own))
    made.append(make_record(9002, {"perplexity": 1.25}, tier="cpu"))
    return made


@pytest.fixture(scope="session")
def rendered_store(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all that `store` renders to."""
    return render("smoke", tmp_path_factory.mktemp("rendered"), store).parent
