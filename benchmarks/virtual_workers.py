"""Hundreds of thousands of worker slots on one machine: real MPI ranks, a real root and tree, tasks that only wait.

    python benchmarks/virtual_workers.py --json build/virtual_workers.json
    python benchmarks/virtual_workers.py --slots 1024 16384 --seconds 2

Each rank but the root is an agent whose workers are a bank (`--virtual-slots`): a slot takes a task, waits for as long
as the task's last argument says, and answers None. All else is what ships: Python submits one call after the other, the
root's engine schedules, frames go down and up the tree.

rate    tasks that take no time: what root and tree can carry
weak    ten tasks for each slot, each of the same time
strong  50,000 tasks of one second

Efficiency is the time that as many perfect workers would need, over the time from the first submission to the last
result; all slots are up before. MPITASK_NODE makes nodes out of every few ranks, so that there are relays.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "MPITASK_BENCHMARK_ID"
UP_LIMIT_S, JOB_LIMIT_S = 900, 3600
PLAY_NODE = 'rank=${PMI_RANK:-${OMPI_COMM_WORLD_RANK:-0}}; MPITASK_NODE=$(((rank + $0 - 1) / $0)) exec "$@"'
"""A shell line in front of each rank's command: the root is a node of its own, then every $0 ranks are one."""


# ---- inside the job ----


def run_case(engine: Any, app: Callable[[int], Any], slots: int, n: int, seconds: float) -> dict[str, Any]:
    """Submits n tasks, waits for all, looks at every result."""
    before, process_before, start = engine.stats(), time.process_time(), time.perf_counter()
    microseconds = round(seconds * 1e6)
    thread_before = time.thread_time()
    futures = [app(microseconds) for _ in range(n)]
    submitting_cpu_s, submitted = time.thread_time() - thread_before, time.perf_counter()
    engine.wait()
    end, after = time.perf_counter(), engine.stats()
    process_s = time.process_time() - process_before
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert all(future.result() is None for future in futures)
    ideal_s = math.ceil(n / slots) * seconds
    return {
        "tasks": n,
        "task_seconds": seconds,
        "makespan_s": end - start,
        "ideal_s": ideal_s,
        "efficiency": ideal_s / (end - start),
        "tasks_per_s": n / (end - start),
        "submitting_s": submitted - start,
        "us_per_task": {
            "submitting_thread": submitting_cpu_s / n * 1e6,
            "root_engine_thread": (after["cpu_ns"] - before["cpu_ns"]) / n / 1e3,
            "root_process": process_s / n * 1e6,
        },
        "root_frames_in": after["frames_in"] - before["frames_in"],
        "root_frames_out": after["frames_out"] - before["frames_out"],
        "root_max_rss_mb": round(largest / 1e6),
    }


def inside(order: dict[str, Any]) -> None:
    import mpitask

    def tell(case: str, **what: Any) -> None:
        print(json.dumps({"case": case, "at": time.time(), **what}), flush=True)

    def app() -> Callable[[int], Any]:
        """A function of its own for each case: what one case teaches about durations must not help the next."""

        @mpitask.python_app
        def wait(_: int) -> None:
            raise AssertionError("a virtual worker runs no functions")

        return wait

    slots, engine = order["slots"], mpitask.current()
    tell("script")
    limit = time.monotonic() + UP_LIMIT_S
    while engine.stats()["slots"] < slots:
        assert time.monotonic() < limit, engine.stats()
        time.sleep(0.01)
    tell("up")
    time.sleep(order["rest_s"])
    seconds = order["seconds"]
    if order["rate_tasks"]:
        rate = run_case(engine, app(), slots, order["rate_tasks"], 0)
        tell("rate", **rate)
        if seconds is None:
            seconds = max(0.1, math.ceil(slots / rate["tasks_per_s"] * order["margin"] * 10) / 10)
    if order["weak_tasks"]:
        tell("weak", **run_case(engine, app(), slots, order["weak_tasks"], seconds))
    if order["strong_tasks"]:
        tell("strong", **run_case(engine, app(), slots, order["strong_tasks"], order["strong_seconds"]))
    tell("end")


# ---- around the job ----


def paused_share(seconds: float = 1) -> float:
    """Share of the processor time that a busy thread is charged for although it did not run.

    A virtual machine that is held back, or shares its processor, charges such pauses to whoever runs: all processor
    times are then too large by this share.
    """
    begun = last = time.thread_time()
    paused = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        now = time.thread_time()
        if now - last > 0.0003:
            paused += now - last
        last = now
    return paused / max(1e-9, last - begun)


def marked(mark: str) -> list[int]:
    """Processes of a job that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def mapped(name: str) -> bool:
    """Whether some process uses this shared memory: another job's."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if name in maps.read_text():
                return True
    return False


def below(folder: Path, per_rank: int, tasks: int) -> dict[str, Any]:
    """What the agents say: processor time for each task that went through them. Their whole life is counted."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("rank-*.json"))]
    kinds: dict[str, list[float]] = {"relays": [], "agents": []}
    for stats in found:
        through = tasks * stats["slots"] / (per_rank * len(found))
        kind = "relays" if stats["slots"] > per_rank else "agents"
        kinds[kind].append(stats["cpu_ns"] / max(1.0, through) / 1e3)
    return {
        "ranks": {kind: len(values) for kind, values in kinds.items()},
        "us_per_task": {kind: sum(values) / len(values) for kind, values in kinds.items() if values},
        "all_engine_threads_s": sum(stats["cpu_ns"] for stats in found) / 1e9,
    }


def run_job(options: argparse.Namespace, slots: int, seconds: float | None, rate_tasks: int) -> dict[str, Any]:
    from common import mpiexec

    agents = max(options.least_agents, slots // options.per_rank)
    per_rank = slots // agents
    order = {
        "slots": slots,
        "seconds": seconds,
        "margin": options.margin,
        "rest_s": options.rest,
        "rate_tasks": rate_tasks,
        "weak_tasks": options.per_slot * slots,
        "strong_tasks": options.strong_tasks,
        "strong_seconds": options.strong_seconds,
    }
    mark = f"{MARK}={uuid.uuid4().hex}"
    memory_before = shared_memory()
    with tempfile.TemporaryDirectory() as folder:
        stats = Path(folder)
        command = [mpiexec(), "-n", str(agents + 1), "sh", "-c", PLAY_NODE, str(options.per_node), sys.executable]
        command += ["-m", "mpitask", "--fanout", str(options.fanout)]
        command += ["--virtual-slots", str(per_rank), "--stats", str(stats)]
        command += [str(Path(__file__).resolve()), "--inside", json.dumps(order)]
        environment = dict(os.environ) | dict([mark.split("=")])
        began = time.time()
        lines: dict[str, dict[str, Any]] = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if not line.startswith("{"):
                    continue
                told = json.loads(line)
                lines[told.pop("case")] = told
                print(f"  {slots} slots: {line.strip()[:150]}", file=sys.stderr, flush=True)
            code = process.wait(JOB_LIMIT_S)
        ended = time.time()
        if code != 0 or "end" not in lines:
            sys.exit(f"{' '.join(command)}\nexit code {code}")
        cases = {name: lines[name] for name in ("rate", "weak", "strong") if name in lines}
        report: dict[str, Any] = {
            "slots": slots,
            "agents": agents,
            "slots_per_agent": per_rank,
            "agents_per_node": options.per_node,
            "fanout": options.fanout,
            "start_s": lines["up"]["at"] - began,
            "end_s": ended - lines["end"]["at"],
            "below_root": below(stats, per_rank, sum(case["tasks"] for case in cases.values())),
        }
    for case in cases.values():
        del case["at"]
    time.sleep(0.2)
    left = [f"process {pid}" for pid in marked(mark)]
    left += [f"/dev/shm/{name}" for name in shared_memory() - memory_before if "mpi" in name and not mapped(name)]
    return report | {"left_behind": left} | cases


def table(jobs: list[dict[str, Any]]) -> str:
    rows = [
        "| slots | agents | start, s | task, s | weak: efficiency | strong: efficiency "
        "| root, µs | relay, µs | agent, µs |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for job in jobs:
        weak, strong, below_root = job.get("weak"), job.get("strong"), job["below_root"]["us_per_task"]
        cells = [
            f"{job['slots']:,}",
            str(job["agents"]),
            f"{job['start_s']:.0f}",
            f"{weak['task_seconds']:g}" if weak else "-",
            f"{weak['efficiency']:.1%}" if weak else "-",
            f"{strong['efficiency']:.1%}" if strong else "-",
            f"{weak['us_per_task']['root_engine_thread']:.2f}" if weak else "-",
            f"{below_root['relays']:.2f}" if "relays" in below_root else "-",
            f"{below_root['agents']:.2f}" if "agents" in below_root else "-",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[1024, 4096, 16384, 65536, 262144])
    parser.add_argument("--per-rank", type=int, default=4096, help="slots of a rank, at most (default 4096)")
    parser.add_argument("--least-agents", type=int, default=4, help="agents even for few slots (default 4)")
    parser.add_argument("--per-node", type=int, default=8, help="agents that play one node (default 8)")
    parser.add_argument("--fanout", type=int, default=8)
    parser.add_argument("--per-slot", type=int, default=10, help="weak: tasks for each slot; 0: leave it out")
    parser.add_argument("--seconds", type=float, help="weak: time of a task (default: from the largest job's rate)")
    parser.add_argument(
        "--margin", type=float, default=4, help="how many times slower than its rate the root is driven"
    )
    parser.add_argument("--rate-tasks", type=int, default=500_000, help="0: leave it out")
    parser.add_argument("--strong-tasks", type=int, default=50_000, help="0: leave it out")
    parser.add_argument("--strong-seconds", type=float, default=1)
    parser.add_argument("--rest", type=float, default=2, help="seconds of idleness before the first case")
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for a quiet machine, at most")
    parser.add_argument("--gauge", type=float, default=2, help="seconds of looking for pauses, between jobs")
    parser.add_argument("--json", type=Path, default=Path("build/virtual_workers.json"))
    parser.add_argument("--inside", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        inside(options.inside)
        return
    from common import Circumstances, machine, write_json

    circumstances = Circumstances()
    pauses = [paused_share(options.gauge)]
    jobs: list[dict[str, Any]] = []
    seconds = options.seconds
    for slots in sorted(options.slots, reverse=True):  # the largest says which time of a task can be carried
        circumstances.wait(options.patience)
        circumstances.note()
        jobs.insert(0, run_job(options, slots, seconds, options.rate_tasks))
        pauses.append(paused_share(options.gauge))
        seconds = jobs[0]["weak"]["task_seconds"] if seconds is None and "weak" in jobs[0] else seconds
        report = {
            "machine": machine(),
            **circumstances.report(),
            "pauses_charged_as_processor_time": [round(share, 3) for share in pauses],
            "jobs": jobs,
        }
        write_json(options.json, report)
    print(table(jobs))
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
