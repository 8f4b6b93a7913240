"""Simulated maps over ranges: hand arithmetic, deaths, and how long spans are."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from mpitask.errors import ConfigurationError
from mpitask.native import ffi, lib
from mpitask.sim import Job, run, shipped


def simulate(workers: int, **options: Any) -> dict[str, Any]:
    quiet = {"submit": "range", "submit_us": 0.0, "worker_overhead_us": 0.0}
    return run(Job(workers=workers, **(quiet | options)), shipped())


def test_items_run_in_waves() -> None:
    """8 items of 1 s on 4 workers: two waves."""
    report = simulate(4, per_node=4, tasks_per_worker=2)
    assert 2.0 <= report["makespan_s"] < 2.02
    assert report["efficiency"] == pytest.approx(8 / (4 * report["makespan_s"]), abs=1e-5)
    assert report["tasks_per_s"] == pytest.approx(8 / report["makespan_s"], rel=1e-5)
    assert report["tasks"]["submitted"] == report["tasks"]["done"] == 8
    assert report["levels"][0]["tasks_in"] == 2  # spans: each of an item for each worker


def test_an_item_takes_two_latencies_and_what_the_script_takes() -> None:
    """One worker, one item: the script's time does not count before the first span, the message's way does, twice."""
    latency_us = 5000.0
    report = simulate(1, per_node=1, tasks_per_worker=1, latency_us=latency_us, jitter=0, naps=False, submit_us=7000)
    assert report["makespan_s"] == pytest.approx(1 + 2 * latency_us / 1e6, rel=1e-4)


def test_the_script_is_woken_twice_before_it_submits_more() -> None:
    """Three spans of one item are under way; the fourth is submitted when the first has ended, so a late bell shows."""
    options: dict[str, Any] = {"per_node": 1, "tasks_per_worker": 4, "latency_us": 0, "jitter": 0, "naps": False}
    options["task_seconds"] = 0.5
    early_us = 2e5  # two of them are less than the two items that the worker has left
    assert simulate(1, bell_us=early_us, **options)["makespan_s"] == pytest.approx(2, rel=1e-3)
    late_us = 7.5e5  # two of them are 1.5 s: for 1 s of them the worker has items
    assert simulate(1, bell_us=late_us, **options)["makespan_s"] == pytest.approx(2.5, rel=1e-3)


def test_all_workers_of_a_tree_end_with_the_last_wave() -> None:
    """Three levels, ten waves of items: what is sent ahead must not lie somewhere when it could run elsewhere."""
    report = simulate(2048, per_node=8, fanout=8, tasks_per_worker=10)
    assert report["makespan_s"] == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize(("shape", "task_seconds"), [("imbalance", 1.0), ("loguniform", 0.01)])
def test_items_of_many_durations_keep_all_workers_busy(shape: str, task_seconds: float) -> None:
    """Nearly as good as a call for each item, where nothing is sent ahead; the longest item is what both wait for."""
    options: dict[str, Any] = {"per_node": 8, "fanout": 8, "tasks_per_worker": 20, "shape": shape}
    as_range = simulate(512, task_seconds=task_seconds, **options)
    as_calls = simulate(512, task_seconds=task_seconds, **options | {"submit": "calls"})
    assert as_range["tasks"]["done"] == as_calls["tasks"]["done"] == 20 * 512
    assert as_range["efficiency"] > 0.93 * as_calls["efficiency"]


def test_a_span_that_does_not_end_holds_no_others_up() -> None:
    """Each span has some item that takes very long: the next is submitted when the others have been sent."""
    report = simulate(64, per_node=8, tasks_per_worker=40, shape="loguniform", task_seconds=0.01)
    longest_s, mean_s = 10, 0.01 * 999 / math.log(1000)
    assert report["makespan_s"] < 40 * mean_s + longest_s


def test_short_items_go_in_parts_of_many() -> None:
    """20,000 items of 1 ms on 4 workers: parts are of about 30 ms, and a part of k items takes k times as long."""
    report = simulate(4, per_node=2, tasks_per_worker=5000, task_seconds=0.001)
    assert report["makespan_s"] == pytest.approx(5, rel=0.02)
    assert report["tasks"]["done"] == 20_000
    parts = sum(level["tasks_out"] for level in report["levels"][1:])
    assert 20_000 / 30 < parts < 20_000 / 10


def test_values_of_parts_take_time_to_put_together() -> None:
    """A second for each byte of values: 4 parts of 36 + 1 bytes with heads of 24, padded to 64, are joined at the node,
    and again at the root, in the root's thread."""
    from mpitask.sim.costs import Calibration

    slow = shipped().as_dict()
    slow["engine_ns"]["byte_join"] = 1e6
    report = run(
        Job(workers=4, per_node=4, tasks_per_worker=1, submit="range", submit_us=0.0, worker_overhead_us=0.0),
        Calibration(**slow),
    )
    assert report["makespan_s"] == pytest.approx(1 + 2 * 4 * 64 * 1e-3, rel=1e-2)


def test_workers_need_time_for_each_part() -> None:
    """Items of 1 s are parts of their own, so each pays the overhead; those of 1 ms share it."""
    long = simulate(4, per_node=4, tasks_per_worker=5, worker_overhead_us=1e6)
    assert long["efficiency"] == pytest.approx(0.5, abs=0.02)
    assert long["time"]["workers"]["overhead"] == pytest.approx(0.5, abs=0.02)
    short = simulate(4, per_node=4, tasks_per_worker=5000, task_seconds=0.001, worker_overhead_us=1000)
    assert short["efficiency"] > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_dead_nodes_cost_work_but_no_item(seed: int) -> None:
    report = simulate(128, per_node=8, fanout=4, tasks_per_worker=5, kill_nodes=3, losses=255, seed=seed)
    tasks = report["tasks"]
    assert report["nodes_killed"] >= 3
    assert tasks["done"] == tasks["submitted"] == 640
    assert tasks["attempts_lost"] > 0
    assert report["efficiency"] < 1


def test_without_further_attempts_spans_fail_as_wholes() -> None:
    """The first three spans have an item for each worker; a dead node fails all of them that it had items of."""
    report = simulate(128, per_node=8, tasks_per_worker=5, kill_nodes=3, losses=0)
    tasks = report["tasks"]
    assert tasks["failed"] > 0
    assert tasks["done"] + tasks["failed"] == tasks["submitted"] == 640
    assert report["efficiency"] == pytest.approx(tasks["done"] / (128 * report["makespan_s"]), rel=1e-4)


def test_when_all_are_dead_the_rest_is_given_up() -> None:
    report = simulate(8, per_node=4, tasks_per_worker=100, kill_nodes=2)
    assert report["hopeless"]
    assert sum(report["tasks"][name] for name in ("done", "failed", "cancelled")) == report["tasks"]["submitted"] < 800


def test_the_same_seed_gives_the_same_numbers() -> None:
    options: dict[str, Any] = {"per_node": 4, "jitter": 1.0, "kill_nodes": 2, "tasks_per_worker": 50, "fanout": 3}

    def play(seed: int) -> str:
        report = simulate(64, seed=seed, task_seconds=0.01, **options)
        return json.dumps({name: value for name, value in report.items() if name != "wall"})

    assert play(7) == play(7) != play(8)


def test_items_do_not_depend_on_each_other() -> None:
    for shape in "chain", "stencil":
        with pytest.raises(ConfigurationError, match="do not depend"):
            simulate(8, shape=shape)
    with pytest.raises(ConfigurationError, match="calls, range"):
        simulate(8, submit="both")


class Pace:
    """How long spans are, in Python's own numbers."""

    def __init__(self, total: int, chunk: int) -> None:
        self.left, self.chunk = total, chunk
        self.wanted = 0
        self.items, self.seconds, self.last_end_s = 0.0, 0.0, 0.0

    def take(self, workers: int) -> int:
        chunks = max(-(-self.wanted // self.chunk), workers)
        count = min(chunks * self.chunk, self.left)
        self.left -= count
        return count

    def learn(self, count: int, submitted_s: float, now_s: float, size: int) -> None:
        self.seconds = self.seconds / 2 + max(now_s - max(self.last_end_s, submitted_s), 1e-6)
        self.items = self.items / 2 + count
        self.last_end_s = now_s
        in_a_quarter_of_a_second = int(self.items / self.seconds / 4)
        self.wanted = min(in_a_quarter_of_a_second, 16 * count, int(2.0**26 * count / max(1, size)), 1 << 62)


@pytest.mark.parametrize("seed", range(40))
def test_pace(seed: int) -> None:
    rng = random.Random(seed)
    total, workers = rng.choice([1, 1000, 10**6, 10**9, 2**63 - 1]), rng.choice([1, 7, 1000, 10**6])
    chunk = rng.choice([1, 1, 3, 1000, 2**31 - 1])
    pace, model = ffi.new("mt_pace *", {"left": total, "chunk": chunk}), Pace(total, chunk)
    item_s, item_bytes = 10 ** rng.uniform(-12, 1), rng.choice([0, 1, 300, 10**5])
    running: list[tuple[int, float]] = []
    now_s, taken = rng.choice([0.0, 1e3]), 0
    for _ in range(200):
        if len(running) < 3 and pace.left:
            there = rng.choice([workers, max(1, workers // 2)])
            count = lib.mt_pace_take(pace, there)
            assert count == model.take(there)
            running.append((count, now_s))
            taken += count
        if running and (len(running) == 3 or rng.random() < 0.5):
            count, submitted_s = running.pop(rng.randrange(len(running)))
            now_s += rng.choice([0.0, 1e-5, count * item_s / workers * rng.uniform(0.5, 2)])
            size = min(count * item_bytes + rng.choice([0, 36]), 2**63)
            lib.mt_pace_learn(pace, count, submitted_s, now_s, size)
            model.learn(count, submitted_s, now_s, size)
            assert pace.wanted == pytest.approx(model.wanted, abs=1, rel=1e-12)
            model.wanted = pace.wanted  # the last bit may differ
        now_s += rng.choice([0.0, 1e-4, 0.1])
    assert taken + pace.left == total
