"""Runs all measurements, systems taking turns, and writes medians as JSON and as a table.

python benchmarks/run.py --json build/benchmarks.json [--repeat 5] [--only throughput]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from start import mpiexec

HERE = Path(__file__).parent
PY = sys.executable
MEASURE = str(HERE / "measure.py")
SIZES = {
    "throughput": 100_000,
    "round_trip": 3000,
    "chain": 5000,
    "fan_in": 10_000,
    "dataflow": 100_000,
    "bulk": 5_000_000,
    "array": 200,
    "bash": 400,
}
PEER_SIZES = {"throughput": 10_000, "round_trip": 1000, "bulk": 2_000_000, "array": 40}


def words(sizes: dict[str, int], *without: str) -> list[str]:
    return [f"{case}={n}" for case, n in sizes.items() if case not in without]


def job(*options: str) -> list[str]:
    return [mpiexec(), "-n", "3", PY, "-m", "mpitask", *options, MEASURE, "mpitask"]


def plan() -> dict[str, list[list[str]]]:
    """Name of what is measured -> commands, each in a process of its own. One round runs each of them once."""
    local = [PY, "-m", "mpitask", "--workers", "2", MEASURE, "mpitask"]
    start = [PY, str(HERE / "start.py")]
    return {
        "mpitask, 2 local workers": [[*local, *words(SIZES)], [*local, "memory=200000"], [*start, "local"]],
        "ProcessPoolExecutor": [
            [PY, MEASURE, "ppe", *words(PEER_SIZES)],
            [PY, MEASURE, "ppe", "memory=50000"],
            [*start, "ppe"],
        ],
        "Pool.apply_async": [[PY, MEASURE, "pool", *words(PEER_SIZES)], [PY, MEASURE, "pool", "memory=50000"]],
        "mpitask, mpiexec -n 3, process workers": [[*job("--workers", "1"), *words(SIZES)], [*start, "mpiexec"]],
        "mpitask, mpiexec -n 3, inline": [[*job("--inline"), *words(SIZES)]],
        "mpi4py.futures, mpiexec -n 3": [
            [mpiexec(), "-n", "3", PY, "-m", "mpi4py.futures", MEASURE, "mpi4py", *words(PEER_SIZES, "array")],
            [*start, "mpi_only"],
        ],
    }


def once() -> dict[str, list[list[str]]]:
    """What is run once: it takes its own medians, or is long."""
    local = [PY, "-m", "mpitask", "--workers", "2", MEASURE, "mpitask"]
    return {
        "mpitask, memoised call": [[*local, "cache_hit=2000"]],
        "mpitask, 10 million tasks in waves": [[*local, "waves=10000000"]],
        "mpitask, 8 idle ranks": [[PY, str(HERE / "idle.py")]],
    }


def run(command: list[str], timeout_s: float) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def stolen_share(before: Any, after: Any) -> float:
    """Share of processor time that the hypervisor gave to others."""
    total = sum(after) - sum(before)
    return (getattr(after, "steal", 0) - getattr(before, "steal", 0)) / total if total else 0.0


def machine() -> dict[str, Any]:
    model = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "?: ?")
    packages = ("mpitask", "mpi4py", "mpich", "numpy", "cffi", "cloudpickle")
    versions = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
    return {
        "processor": model.split(":")[1].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: versions[name] for name in packages if name in versions},
    }


def summary(samples: list[float]) -> dict[str, float]:
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples), "n": len(samples)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"))
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--only", default="", help="systems whose name contains this")
    parser.add_argument("--short", action="store_true", help="leave out what runs once and long")
    options = parser.parse_args()
    samples: dict[str, dict[str, list[float]]] = {}
    begun, cpu = time.time(), psutil.cpu_times()

    def take(name: str, commands: list[list[str]], timeout_s: float) -> None:
        for command in commands:
            for record in run(command, timeout_s):
                case = record.pop("case")
                for key in record.keys() - {"system", "n"}:
                    samples.setdefault(name, {}).setdefault(f"{case}.{key}", []).append(record[key])

    for turn in range(options.repeat):
        for name, commands in plan().items():
            if options.only in name:
                print(f"round {turn + 1}/{options.repeat}: {name}", file=sys.stderr, flush=True)
                take(name, commands, 300)
    if not options.short:
        for name, commands in once().items():
            if options.only in name:
                print(name, file=sys.stderr, flush=True)
                take(name, commands, 1800)
    report = {
        "machine": machine(),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "seconds": round(time.time() - begun),
        "stolen_share_of_processor": round(stolen_share(cpu, psutil.cpu_times()), 3),
        "results": {name: {key: summary(v) for key, v in keys.items()} for name, keys in samples.items()},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    for name, keys in report["results"].items():
        print(name)
        for key, s in sorted(keys.items()):
            print(f"    {key:44} {s['median']:14,.3f}   ({s['min']:,.3f} ... {s['max']:,.3f})")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
