"""Simulated jobs: known small cases against hand arithmetic, determinism, deaths, the command line."""

from __future__ import annotations

import heapq
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import ROOT
from mpitask.errors import ConfigurationError
from mpitask.sim import Job, durations, run, shipped
from mpitask.sim.__main__ import main


def simulate(workers: int, **options: Any) -> dict[str, Any]:
    return run(Job(workers=workers, **({"submit_us": 0.0, "worker_overhead_us": 0.0} | options)), shipped())


def without_wall(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "wall"}


def test_one_node_runs_in_waves() -> None:
    """8 tasks of 1 s on 4 workers: two waves, and what the engine needs in between is far below a percent."""
    report = simulate(4, per_node=4, tasks_per_worker=2)
    assert 2.0 <= report["makespan_s"] < 2.02
    assert 0.99 < report["efficiency"] <= 1.0
    assert report["efficiency"] == pytest.approx(8 / (4 * report["makespan_s"]), abs=1e-5)
    assert report["tasks_per_s"] == pytest.approx(8 / report["makespan_s"], rel=1e-5)
    assert report["tasks"] == {
        "submitted": 8,
        "done": 8,
        "failed": 0,
        "dependency_failed": 0,
        "cancelled": 0,
        "attempts_lost": 0,
    }


def test_a_task_takes_two_latencies() -> None:
    """A chain on one node, ranks that look all the time: each task waits for a message up and one down."""
    latency_us, tasks = 5000.0, 10
    report = simulate(
        1,
        per_node=1,
        shape="chain",
        tasks_per_worker=tasks,
        task_seconds=1,
        latency_us=latency_us,
        jitter=0,
        naps=False,
    )
    expected = tasks * (1 + 2 * latency_us / 1e6)
    assert report["makespan_s"] == pytest.approx(expected, rel=1e-4)


def test_short_tasks_are_sent_ahead() -> None:
    """The same latency hides behind tasks of 1 ms: the engine sends them ahead."""
    report = simulate(1, per_node=1, tasks_per_worker=2000, task_seconds=0.001, latency_us=2000, jitter=0, naps=False)
    assert report["efficiency"] > 0.95


def test_the_script_is_the_limit() -> None:
    """64 workers, tasks of 1 ms, a script that needs 1 ms for each: one worker's worth of work."""
    report = simulate(64, per_node=32, tasks_per_worker=5, task_seconds=0.001, submit_us=1000)
    assert report["makespan_s"] == pytest.approx(320 * 0.001, rel=0.05)


def test_workers_need_time_for_themselves() -> None:
    report = simulate(4, per_node=4, tasks_per_worker=50, task_seconds=0.1, worker_overhead_us=100_000)
    assert report["efficiency"] == pytest.approx(0.5, abs=0.02)
    assert report["time"]["workers"]["overhead"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("task_seconds", [0.009, 0.02, 0.05])
def test_a_few_tasks_ahead_hide_the_looks(task_seconds: float) -> None:
    """Frames wait up to 2 ms for a look, up and down, and workers would wait with them."""
    report = simulate(256, per_node=16, tasks_per_worker=50, task_seconds=task_seconds, naps=True)
    assert report["efficiency"] > 0.99


def test_chains_run_one_after_the_other() -> None:
    report = simulate(8, per_node=4, shape="chain", tasks_per_worker=20, task_seconds=0.1)
    assert report["tasks"]["done"] == 160
    assert 2.0 <= report["makespan_s"] < 2.1


def test_a_stencil_waits_for_its_neighbours() -> None:
    """With uneven tasks a layer waits for the longest of neighbours: slower than chains, never faster."""
    uneven: dict[str, Any] = {"per_node": 8, "tasks_per_worker": 20, "task_seconds": 0.1, "spread": 0.5, "seed": 3}
    stencil, chains = simulate(32, shape="stencil", **uneven), simulate(32, shape="chain", **uneven)
    assert stencil["tasks"]["done"] == chains["tasks"]["done"] == 640
    assert stencil["makespan_s"] >= chains["makespan_s"] > 2.0


@pytest.mark.parametrize("per_node", [64, 8, 2])
@pytest.mark.parametrize("seed", range(3))
def test_durations_of_three_decades_are_scheduled_nearly_as_a_list(per_node: int, seed: int) -> None:
    """1,024 tasks of 1 ms to 1 s on 64 workers: what was sent ahead behind a long task is taken back in time."""
    job = Job(workers=64, per_node=per_node, shape="loguniform", tasks_per_worker=16, task_seconds=0.001, seed=seed)
    lasting = durations(job)
    assert len(lasting) == 1024
    assert min(lasting) < 0.002
    assert 0.9 < max(lasting) <= 1.0
    free = [0.0] * job.workers  # a perfect list schedule: the next task goes to the worker that is free first
    for seconds in lasting:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    report = run(job, shipped())
    assert report["tasks"]["done"] == 1024
    assert report["makespan_s"] < 1.1 * max(free)


def test_an_imbalance_is_filled_up() -> None:
    """Uneven tasks without edges: whoever is free gets the next, so only the end is lost."""
    report = simulate(16, per_node=8, shape="imbalance", tasks_per_worker=50, task_seconds=0.1)
    assert 0.93 < report["efficiency"] < 1


def test_levels_of_the_tree() -> None:
    report = simulate(1000, per_node=10, fanout=4, tasks_per_worker=2, task_seconds=0.1)
    assert [level["ranks"] for level in report["levels"]] == [1, 4, 16, 64, 16]
    assert sum(level["workers"] for level in report["levels"]) == report["workers"] == 1000
    assert report["levels"][0]["results_in"] == 2000
    assert report["ranks"] == 101
    assert report["depth"] == 4
    for level in report["levels"]:
        assert 0 <= level["utilisation"] <= level["busiest_utilisation"] <= 1
        assert level["frames_per_s"] > 0
        assert level["bytes_per_s"] > 0
        assert level["max_queue"] >= 1


def test_the_running_workers_add_up() -> None:
    report = simulate(100, per_node=10, tasks_per_worker=3, task_seconds=0.05)
    running = report["running"]
    assert max(running["workers"]) <= 100.001
    assert sum(running["workers"]) * running["seconds"] == pytest.approx(300 * 0.05, rel=1e-3)


def test_the_same_seed_gives_the_same_numbers() -> None:
    options: dict[str, Any] = {"per_node": 4, "spread": 0.5, "jitter": 1.0, "kill_nodes": 2, "tasks_per_worker": 5}
    first, again = (simulate(64, seed=7, fanout=3, **options) for _ in range(2))
    assert json.dumps(without_wall(first)) == json.dumps(without_wall(again))
    assert without_wall(first) != without_wall(simulate(64, seed=8, fanout=3, **options))
    assert first["wall"]["seconds"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_dead_nodes_cost_work_but_no_task(seed: int) -> None:
    report = simulate(128, per_node=8, fanout=4, tasks_per_worker=5, kill_nodes=3, losses=255, seed=seed)
    tasks = report["tasks"]
    assert report["nodes_killed"] >= 3
    assert report["workers_left"] == 128 - 8 * report["nodes_killed"]
    assert tasks["done"] == tasks["submitted"] == 640
    assert tasks["attempts_lost"] > 0
    assert report["efficiency"] < 1


def test_without_further_attempts_lost_tasks_fail() -> None:
    report = simulate(128, per_node=8, tasks_per_worker=5, kill_nodes=3, losses=0)
    tasks = report["tasks"]
    assert tasks["failed"] == tasks["attempts_lost"] > 0
    assert tasks["done"] + tasks["failed"] == 640


def test_when_all_are_dead_the_rest_is_given_up() -> None:
    report = simulate(8, per_node=4, tasks_per_worker=100, kill_nodes=2)
    assert report["hopeless"]
    assert report["workers_left"] == 0
    assert sum(report["tasks"][name] for name in ("done", "failed", "cancelled")) == report["tasks"]["submitted"]


def test_one_lane_with_many_slots_for_each_node() -> None:
    report = simulate(64, per_node=16, one_lane=True, tasks_per_worker=3)
    assert report["tasks"]["done"] == 192
    assert 3.0 <= report["makespan_s"] < 3.1


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--workers", "0"], "workers = 0"),
        (["--workers", "8", "--fanout", "0"], "fanout = 0"),
        (["--workers", "8", "--task-seconds", "-1"], "task_seconds = -1"),
        (["--workers", "8", "--kill-nodes", "2"], "kill_nodes = 2"),
        (["--workers", "8", "--shape", "circle"], "circle"),
        (["--workers", "8", "--jitter", "nan"], "jitter = nan"),
        (["--workers", "8", "--plot", "x.gif"], ".png or .svg"),
        (["--workers", "8", "--plot", "/no/such/place/x.svg"], "there is no directory /no/such/place"),
        (["--workers", "8", "--calibration", "/nowhere.json"], "/nowhere.json"),
        ([], "--workers"),
        (["--worker", "8"], "--worker"),
    ],
)
def test_bad_options(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    told = capsys.readouterr()
    assert hint in told.err
    assert told.out == ""


def test_json_is_one_object_with_all_fields() -> None:
    words = ["--workers", "8", "--per-node", "4", "--calibration", "shipped", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "mpitask.sim", *words], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    report = json.loads(done.stdout)
    assert report["simulated"] is True
    for name in ("efficiency", "makespan_s", "tasks_per_s", "root_utilisation"):
        assert math.isfinite(report[name])
    for name in ("seed", "workers", "fanout", "levels", "time", "calibration", "versions", "options"):
        assert name in report
    assert set(report["calibration"]["engine_ns"]) >= {"step", "submit", "end"}


def test_the_text_says_that_it_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--workers", "4", "--per-node", "2", "--calibration", "shipped"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("simulated: 4 workers")
    assert out.count("(simulated)") >= 3


def test_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "job.svg"
    assert main(["--workers", "40", "--per-node", "4", "--calibration", "shipped", "--plot", str(picture)]) == 0
    text = picture.read_text()
    assert text.startswith("<svg")
    assert "simulated: 40 workers" in text
    assert capsys.readouterr().out


def test_an_own_calibration(tmp_path: Path) -> None:
    file = tmp_path / "slow.json"
    slow = shipped().as_dict()
    slow["engine_ns"]["end"] = 1_000_000.0
    file.write_text(json.dumps(slow))
    from mpitask.sim import costs

    report = run(
        Job(workers=64, submit_us=0.0, worker_overhead_us=0.0, task_seconds=0.001, tasks_per_worker=5),
        costs.read(file),
    )
    assert report["makespan_s"] > 0.32  # 1 ms of the root's thread for each of 320 tasks
    assert report["root_utilisation"] > 0.9
    slow["engine_ns"].pop("end")
    file.write_text(json.dumps(slow))
    with pytest.raises(ConfigurationError, match="no calibration"):
        costs.read(file)
