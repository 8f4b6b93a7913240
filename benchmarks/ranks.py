"""A job of many ranks on this machine: how long it takes to start and to end, how fast it is, what it needs.

    python benchmarks/ranks.py --ranks 256 --tasks 100000 -- --inline

What follows `--` goes to mpitask. "up" is the time from the command to the moment at which every rank has a worker;
memory is the sum over all processes of the job of what each does not share (PSS), and of the root alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from start import mpiexec

SCRIPT = """
import json, sys, time
from mpitask import current, python_app

@python_app
def noop(x):
    return x

def memory():
    with open("/proc/self/status") as f:
        pairs = [line.split()[:2] for line in f if line.startswith("Rss")]
    return {name.rstrip(":"): int(kb) / 1024 for name, kb in pairs}

began, n_ranks, n_tasks = time.time(), int(sys.argv[1]), int(sys.argv[2])
engine = current()
while engine.stats()["slots"] < n_ranks - 1:
    time.sleep(0.01)
up, at_start = time.time(), memory()
assert sum(f.result() for f in [noop(i) for i in range(1000)]) == 499500
start = time.perf_counter()
futures = [noop(i) for i in range(n_tasks)]
assert sum(f.result() for f in futures) == n_tasks * (n_tasks - 1) // 2
rate = n_tasks / (time.perf_counter() - start)
print(json.dumps({"began": began, "up": up, "rate": rate}), flush=True)
time.sleep(1)
before = engine.stats()
sys.stdin.readline()
after = engine.stats()
print(json.dumps({
    "root_frames": after["frames_in"] + after["frames_out"],
    "root_bells": after["bells"],
    "root_private_mb_before_tasks": at_start["RssAnon"],
    "root_private_mb": memory()["RssAnon"],
    "root_shared_mb": memory()["RssShmem"],  # the MPI library's
    "root_sleeps_while_idle": after["sleeps"] - before["sleeps"],
    "end": time.time(),
}), flush=True)
"""


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def pss_mb(processes: list[psutil.Process]) -> float:
    total = 0
    for process in processes:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(text.split("\nPss:")[1].split()[0])
    return total / 1024


def cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return total


def measure(ranks: int, tasks: int, words: list[str], limit_s: float, idle_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(SCRIPT)
        command = [mpiexec(), "-n", str(ranks), sys.executable, "-m", "mpitask", *words, str(script)]
        started = time.time()
        with subprocess.Popen(
            [*command, str(ranks), str(tasks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as job:
            assert job.stdout is not None
            assert job.stdin is not None
            guard = threading.Timer(limit_s, job.kill)
            guard.start()
            first = json.loads(job.stdout.readline())
            processes = family(psutil.Process(job.pid))
            fds = max((p.num_fds() for p in processes), default=0)
            memory = pss_mb(processes)
            before, begun = cpu_s(processes), time.time()
            time.sleep(idle_s)
            cores = (cpu_s(processes) - before) / (time.time() - begun)
            job.stdin.write("\n")
            job.stdin.flush()
            second = json.loads(job.stdout.readline())
            code = job.wait()
            guard.cancel()
        if code != 0:
            sys.exit(f"the job has ended with {code}")
        return {
            "ranks": ranks,
            "tasks": tasks,
            "script_begins_s": first["began"] - started,
            "up_s": first["up"] - started,
            "tasks_per_s": first["rate"],
            "end_s": time.time() - second.pop("end"),
            "processes": len(processes),
            "memory_mb": memory,
            "memory_mb_per_rank": memory / ranks,
            "most_descriptors": fds,
            "idle_cores": cores,
            **second,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=256)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument(
        "--idle", type=float, default=5, help="seconds of doing nothing, in which idle cores are measured"
    )
    parser.add_argument("--limit", type=float, default=1200, help="seconds after which the job is killed")
    parser.add_argument("words", nargs="*", help="options of mpitask, after --")
    options = parser.parse_args()
    record = measure(options.ranks, options.tasks, options.words, options.limit, options.idle)
    print(json.dumps({"system": "mpitask", "case": "ranks", **{k: round(v, 3) for k, v in record.items()}}), flush=True)


if __name__ == "__main__":
    main()
