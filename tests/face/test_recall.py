"""Work that was sent ahead comes back from a worker that turns out to be busy for long."""

from __future__ import annotations

import concurrent.futures
import time
from pathlib import Path

import mpitask


def wait_for(path: str, number: int) -> tuple[int, float]:
    """Ends at once when `path` is empty, else once that file is there."""
    deadline = time.monotonic() + 60
    while path and not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return number, time.monotonic()


def test_short_tasks_do_not_wait_behind_a_long_one(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with mpitask.load(workers=2):
        app = mpitask.python_app(wait_for)
        concurrent.futures.wait([app("", i) for i in range(500)], timeout=60)
        long = app(str(gate), -1)
        try:
            short = [app("", i) for i in range(200)]
            assert [f.result(timeout=60)[0] for f in short] == list(range(200))
            assert not long.done()
        finally:
            gate.touch()
        assert long.result(timeout=60)[0] == -1


def test_an_urgent_task_overtakes_what_was_sent_ahead(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with mpitask.load(workers=1) as engine:
        app = mpitask.python_app(wait_for)
        concurrent.futures.wait([app("", i) for i in range(500)], timeout=60)
        first = app(str(gate), -1)
        patient = [app("", i) for i in range(100)]
        deadline = time.monotonic() + 60
        while not first.running() and time.monotonic() < deadline:
            time.sleep(0.01)
        urgent = mpitask.python_app(wait_for, priority=5)("", 1000)
        looks = engine.stats()["steps"] + 20  # a machine so slow that nothing was sent ahead has nothing to take back
        while engine.stats()["recalled"] == 0 and engine.stats()["steps"] < looks and time.monotonic() < deadline:
            time.sleep(0.01)
        gate.touch()
        assert urgent.result(timeout=60)[1] < min(f.result(timeout=60)[1] for f in patient)


def test_short_tasks_pass_long_ones_that_wait(tmp_path: Path) -> None:
    """Both workers turn out to be busy for long, and long tasks follow: who is free first takes what is oldest."""
    gates = [tmp_path / "first", tmp_path / "second", tmp_path / "others"]
    with mpitask.load(workers=2) as engine:
        app = mpitask.python_app(wait_for)
        concurrent.futures.wait([app("", i) for i in range(500)], timeout=60)
        long = [app(str(gates[i]), -1) for i in range(2)]
        deadline = time.monotonic() + 60
        while not all(f.running() for f in long) and time.monotonic() < deadline:
            time.sleep(0.01)
        short = [app("", i) for i in range(50)]
        others = [app(str(gates[2]), -2) for _ in range(10)]
        try:
            while engine.stats()["ready"] < len(short) + len(others) and time.monotonic() < deadline:
                time.sleep(0.01)
            gates[0].touch()
            assert [f.result(timeout=60)[0] for f in short] == list(range(50))
            assert not long[1].done()
            assert not any(f.done() for f in others)
        finally:
            for gate in gates:
                gate.touch()
        assert {f.result(timeout=60)[0] for f in others} == {-2}
