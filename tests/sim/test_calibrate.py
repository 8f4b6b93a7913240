"""Calibration: it measures something of the right order, and what it writes can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpitask.sim import calibrate, costs


@pytest.mark.timeout(180)
def test_engine_costs_are_of_the_right_order() -> None:
    engine_ns, bell_ns, late_ns = calibrate.engine_costs(rounds=2, backlog=4096)
    assert set(engine_ns) == set(costs.ENGINE)
    assert all(value >= 0 for value in engine_ns.values())
    assert 5 < engine_ns["end"] < 1_000_000
    assert bell_ns >= 0
    assert 0 <= late_ns < 1e9


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "calibration.json"
    costs.write(costs.shipped(), file)
    assert costs.read(file) == costs.shipped()
