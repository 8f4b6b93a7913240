"""The simulator against real jobs: the same engines, tree and tasks, once over real MPI and once in virtual time.

    python benchmarks/validate_sim.py --json build/validate_sim.json
    python benchmarks/validate_sim.py --repeat 31 --calibrate

Each case is a job whose workers are virtual slots (`--virtual-slots`: a task only waits for its time), so that real
ranks can be given tasks without computing them on the same cores. MPITASK_NODE makes each rank a node: the tree is the
simulator's. The makespan is that from the first submission to the last result, with all slots up before. The simulator
is told the costs of a calibration (of this machine just now with `--calibrate`, else this user's or the package's), how
many cores there are, the processor time that the script needed for a call, and nothing else that was measured.

Each case is repeated many times and the least counts: other programs, and a machine that stands still now and then, can
only make a job longer, and jobs are so short that some of them run between two such disturbances.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

UP_LIMIT_S = 120
JOB_LIMIT_S = 300
PLAY_NODES = 'MPITASK_NODE=${PMI_RANK:-${OMPI_COMM_WORLD_RANK:-0}} exec "$@"'
"""A shell line in front of each rank's command."""
LATENCY_US = 1.0
"""Of a message through shared memory between two ranks that both look. Not fitted."""
BANDWIDTH_GB = 5.0


@dataclasses.dataclass(frozen=True)
class Case:
    """A job: ranks besides the root, slots of each, and what is computed."""

    agents: int
    slots: int
    fanout: int
    shape: str
    task_ms: float
    layers: int

    @property
    def workers(self) -> int:
        """Slots of all ranks."""
        return self.agents * self.slots


CASES = [
    Case(2, 2, 64, "bag", 0.1, 1000),
    Case(2, 4, 64, "bag", 1, 100),
    Case(4, 8, 64, "chain", 1, 60),
    Case(4, 4, 64, "imbalance", 5, 20),
    Case(8, 16, 64, "stencil", 10, 10),
    Case(16, 16, 4, "chain", 5, 20),
    Case(16, 16, 64, "imbalance", 20, 6),
    Case(32, 16, 8, "bag", 100, 2),
    Case(63, 16, 8, "bag", 100, 2),
    Case(4, 8, 64, "chain", 20, 15),
    Case(4, 4, 64, "imbalance", 20, 20),
    Case(8, 8, 64, "stencil", 50, 8),
    Case(16, 8, 4, "imbalance", 50, 8),
    Case(32, 8, 8, "chain", 100, 5),
    Case(63, 4, 8, "stencil", 100, 5),
]


# ---- inside the job ----


def inside(order: dict[str, Any]) -> None:
    """Submits a case a few times; prints for each what it took."""
    import mpitask

    @mpitask.python_app
    def wait(*_: Any) -> None:
        raise AssertionError("a virtual worker runs no functions")

    engine = mpitask.current()
    limit = time.monotonic() + UP_LIMIT_S
    while engine.stats()["slots"] < order["workers"]:
        assert time.monotonic() < limit, engine.stats()
        time.sleep(0.01)
    shape, width = order["shape"], order["workers"]
    mean_us = round(order["task_ms"] * 1e3)
    for number in range(order["repeat"]):
        # What it has learnt about durations must not help it the next time: the function is another one.
        app = mpitask.python_app(type(wait.__wrapped__)(wait.__wrapped__.__code__, {}, f"wait{number}"))
        draw = random.Random(number)
        durations = [
            round(draw.random() * 2 * mean_us) if shape == "imbalance" else mean_us
            for _ in range(width * order["layers"])
        ]
        time.sleep(0.05)
        start, start_cpu = time.perf_counter(), time.thread_time()
        before: list[Any] = []
        everything: list[Any] = []
        at = iter(durations)
        for _ in range(order["layers"]):
            if shape in ("bag", "imbalance") or not before:
                now = [app(next(at)) for _ in range(width)]
            elif shape == "chain":
                now = [app(one, next(at)) for one in before]
            else:
                now = [app(*before[max(0, i - 1) : i + 2], next(at)) for i in range(width)]
            everything += now
            before = now
        submitting_cpu_s = time.thread_time() - start_cpu
        engine.wait()
        end = time.perf_counter()
        assert all(future.result() is None for future in everything)
        work_s = sum(durations) / 1e6
        print(
            json.dumps({"makespan_s": end - start, "submitting_cpu_s": submitting_cpu_s, "work_s": work_s}), flush=True
        )


# ---- around it ----


def measure(case: Case, repeat: int) -> list[dict[str, float]]:
    from common import mpiexec, run

    order = dataclasses.asdict(case) | {"repeat": repeat, "workers": case.workers}
    command = [mpiexec(), "-n", str(case.agents + 1), "sh", "-c", PLAY_NODES, "sh", sys.executable, "-m", "mpitask"]
    command += ["--fanout", str(case.fanout), "--virtual-slots", str(case.slots)]
    command += [str(Path(__file__).resolve()), "--inside", json.dumps(order)]
    return run(command, JOB_LIMIT_S)


def simulate(case: Case, submit_us: float, calibration: Path | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "mpitask.sim", "--json", "--quiet", "--workers", str(case.workers)]
    command += ["--per-node", str(case.slots), "--fanout", str(case.fanout), "--shape", case.shape, "--one-lane"]
    command += ["--task-seconds", str(case.task_ms / 1e3), "--tasks-per-worker", str(case.layers)]
    command += ["--latency-us", str(LATENCY_US), "--bandwidth-gb", str(BANDWIDTH_GB), "--submit-us", f"{submit_us:.3f}"]
    command += ["--cores", str(len(os.sched_getaffinity(0)))]
    command += ["--worker-overhead-us", "0"]  # a virtual slot is no process
    command += ["--calibration", str(calibration)] if calibration is not None else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def a_second_of_sleeps() -> float:
    """What fifty sleeps of 20 ms take."""
    start = time.perf_counter()
    for _ in range(50):
        time.sleep(0.02)
    return time.perf_counter() - start


def row(case: Case, real: list[dict[str, float]], predicted_s: float) -> dict[str, Any]:
    from common import summary

    measured = [x["makespan_s"] for x in real]
    ideal_s = statistics.median([x["work_s"] for x in real]) / case.workers
    return dataclasses.asdict(case) | {
        "ranks": case.agents + 1,
        "tasks": case.workers * case.layers,
        "measured_s": summary(measured),
        "work_per_slot_s": ideal_s,
        "simulated_s": predicted_s,
        "error": predicted_s / min(measured) - 1,
    }


def table(rows: list[dict[str, Any]]) -> str:
    from common import markdown, number

    head = [
        "job",
        "ranks",
        "slots",
        "task, ms",
        "tasks",
        "work per slot, s",
        "measured, s: least (median)",
        "simulated, s",
        "error",
    ]
    return markdown(
        head,
        [
            [
                f"{x['shape']}, fan-out {x['fanout']}",
                str(x["ranks"]),
                f"{x['agents'] * x['slots']:,}",
                f"{x['task_ms']:g}",
                f"{x['tasks']:,}",
                number(x["work_per_slot_s"]),
                f"{number(x['measured_s']['min'])} ({number(x['measured_s']['median'])})",
                number(x["simulated_s"]),
                f"{x['error']:+.1%}",
            ]
            for x in rows
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=60, help="at least 2")
    parser.add_argument("--cases", type=int, nargs="+", help="numbers of cases, from 0 (default: all)")
    parser.add_argument("--calibrate", action="store_true", help="measure the engine's costs first (a minute)")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for a quiet machine, at most")
    parser.add_argument("--json", type=Path, default=Path("build/validate_sim.json"))
    parser.add_argument("--inside", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        inside(options.inside)
        return
    from common import Circumstances, machine, write_json

    circumstances = Circumstances()
    rows: list[dict[str, Any]] = []
    second_s = [a_second_of_sleeps()]
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder) / "calibration.json" if options.calibrate else None
        if calibration is not None:
            command = [sys.executable, "-m", "mpitask.sim", "calibrate", "--out", str(calibration)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for i in options.cases or range(len(CASES)):
            case = CASES[i]
            circumstances.wait(options.wait)
            circumstances.note()
            real = measure(case, options.repeat)
            n = case.workers * case.layers
            submit_us = min(x["submitting_cpu_s"] for x in real) / n * 1e6
            simulated = simulate(case, submit_us, calibration)
            rows.append(row(case, real, simulated["makespan_s"]))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
            second_s.append(a_second_of_sleeps())
            report = {"machine": machine(), **circumstances.report(), "a_second_of_sleeps_s": second_s, "cases": rows}
            write_json(options.json, report | {"calibration": simulated["calibration"]})
    print(table(rows))
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
