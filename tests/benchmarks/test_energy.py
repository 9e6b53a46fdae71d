"""Energy and clocks, from counters made of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.timing import energy
from benchmarks.timing.clock import clock
from benchmarks.timing.energy import energy_counter, energy_metrics


def package(folder: Path, number: int, microjoules: int, most: int = 1_000_000) -> Path:
    own = folder / f"intel-rapl:{number}"
    own.mkdir()
    (own / "max_energy_range_uj").write_text(f"{most}\n")
    (own / "energy_uj").write_text(f"{microjoules}\n")
    return own


def test_sockets_add_up_and_a_counter_that_starts_again_loses_nothing(tmp_path: Path) -> None:
    first, second = package(tmp_path, 0, 999_000), package(tmp_path, 1, 10)
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of a socket, which must not count twice
    counter = energy_counter("cpu", tmp_path)
    assert counter is not None and counter() == 0.0
    (first / "energy_uj").write_text("499")  # 999,000 to the maximum of 1,000,000, to 0, to 499: 1,500 of them
    (second / "energy_uj").write_text("200010")
    assert counter() == pytest.approx(0.2015)
    (second / "energy_uj").write_text("200510")
    assert counter() == pytest.approx(0.2020)


def test_a_machine_that_does_not_tell_has_no_energy(tmp_path: Path) -> None:
    assert energy_counter("cpu", tmp_path) is None and energy_counter("cpu", tmp_path / "none") is None
    (package(tmp_path, 0, 1) / "energy_uj").unlink()
    assert energy_counter("cpu", tmp_path) is None


def test_energy_is_told_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_ENOUGH", 0.02)
    spent = {"joules": 0.0}
    seen: list[int] = []

    def step(cost: float) -> Callable[[int], None]:
        def work(number: int) -> None:
            seen.append(number)
            spent["joules"] += cost

        return work

    found = energy_metrics(step(3.0), step(1.5), 4, "cpu", lambda: spent["joules"])
    assert found["dense_energy"].value == pytest.approx(3.0) and found["energy"].value == pytest.approx(1.5)
    assert found["energy_ratio"].value == pytest.approx(0.5)
    assert found["dense_energy"].n + found["energy"].n == len(seen)
    assert set(seen) == {0, 1, 2, 3}


def test_the_clock_is_that_of_the_fastest_core(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\ncpu MHz\t\t: 2100.5\nprocessor\t: 1\ncpu MHz\t\t: 2900.0\n")
    assert clock("cpu", told) == 2900.0
    assert clock("cpu", tmp_path / "none") is None
