"""Simulated ranks that share cores, against hand arithmetic: what costs time is given, all else costs nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from mpitask.sim import Calibration, Job, run, shipped


def simulate(cores: int | None, costs_ms: dict[str, float], **options: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(shipped().engine_ns, 0.0)
    costs = dataclasses.replace(shipped(), engine_ns=nothing | {name: ms * 1e6 for name, ms in costs_ms.items()})
    plain = {"submit_us": 0.0, "worker_overhead_us": 0.0, "latency_us": 0.0, "jitter": 0.0, "naps": False, "bell_us": 0}
    return run(Job(cores=cores, **(plain | options)), Calibration(**costs.as_dict()))


@pytest.mark.parametrize(("cores", "seconds"), [(None, 0.1), (2, 0.1), (1, 0.2)])
def test_script_and_root_share_a_core(cores: int | None, seconds: float) -> None:
    """100 calls of 1 ms, and 1 ms for each in the root: side by side, or one after the other."""
    report = simulate(
        cores, {"submit": 1.0}, workers=4, per_node=4, tasks_per_worker=25, task_seconds=1e-5, submit_us=1000.0
    )
    assert report["makespan_s"] == pytest.approx(seconds, abs=0.003)


@pytest.mark.parametrize(("cores", "seconds"), [(None, 0.011), (8, 0.011), (3, 0.021), (2, 0.021), (1, 0.041)])
def test_agents_wait_for_cores(cores: int | None, seconds: float) -> None:
    """4 nodes get a task of 1 ms each, for which their engines need 10 ms: as many at a time as there are cores."""
    report = simulate(cores, {"take": 10.0}, workers=4, per_node=1, tasks_per_worker=1, task_seconds=0.001)
    assert report["makespan_s"] == pytest.approx(seconds, abs=1e-4)


@pytest.mark.parametrize(("cores", "share"), [(None, 0.0), (4, 0.1 / 2.1)])
def test_looks_in_vain_take_time(cores: int | None, share: float) -> None:
    """While a task of 5 s runs, the root looks for frames every 2 ms, after which it looks for 0.1 ms."""
    report = simulate(cores, {"nap": 0.1}, workers=1, per_node=1, tasks_per_worker=1, task_seconds=5, naps=True)
    assert report["root_utilisation"] == pytest.approx(share, rel=0.1, abs=1e-4)
    assert report["makespan_s"] == pytest.approx(5, abs=0.005)


def test_looks_in_vain_keep_cores_from_others() -> None:
    """41 ranks that look for 0.1 ms every 2 ms want two cores: one cannot give that, four can."""
    job: dict[str, Any] = {"workers": 40, "per_node": 1, "tasks_per_worker": 50, "task_seconds": 0.01, "naps": True}
    one, four, own = (simulate(cores, {"nap": 0.1}, **job)["makespan_s"] for cores in (1, 4, None))
    assert one > 1.3 * four
    assert four < 1.2 * own


def test_a_blocked_script_wants_no_core() -> None:
    """The inbox has 16,384 places; a root that takes 10 us for each task is the limit, and the script waits for it."""
    job: dict[str, Any] = {"workers": 64, "per_node": 64, "tasks_per_worker": 400, "task_seconds": 1e-6}
    report = simulate(1, {"submit": 0.01}, submit_us=0.1, **job)
    assert report["makespan_s"] == pytest.approx(25_600 * (0.01 + 0.0001) * 1e-3, rel=0.02)
    assert report["script_blocked_s"] >= 0


def test_the_same_options_give_the_same_numbers() -> None:
    def play() -> str:
        report = run(
            Job(workers=64, per_node=4, cores=2, tasks_per_worker=20, task_seconds=0.001, jitter=1.0), shipped()
        )
        return json.dumps({name: value for name, value in report.items() if name != "wall"})

    assert play() == play()
