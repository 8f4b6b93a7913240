"""Runs all measurements, systems taking turns, and writes medians as JSON and as a table.

python benchmarks/run.py --json build/benchmarks.json [--repeat 5] [--only throughput]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import HERE, PY, Circumstances, CommandError, end_in_order, machine, mpiexec, run, summary, write_json

MEASURE = str(HERE / "measure.py")
SIZES = {
    "throughput": 100_000,
    "round_trip": 3000,
    "chain": 5000,
    "fan_in": 10_000,
    "dataflow": 100_000,
    "bulk": 5_000_000,
    "bulk_values": 5_000_000,
    "array": 200,
    "bash": 400,
}
PEER_SIZES = {"throughput": 10_000, "round_trip": 1000, "bulk": 2_000_000, "bulk_values": 2_000_000, "array": 40}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"))
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--only", default="", help="systems whose name contains this")
    parser.add_argument("--short", action="store_true", help="leave out what runs once and long")
    options = parser.parse_args()
    samples: dict[str, dict[str, list[float]]] = {}
    end_in_order()
    circumstances = Circumstances()

    def take(name: str, commands: list[list[str]], timeout_s: float) -> None:
        for command in commands:
            for record in run(command, timeout_s):
                case = record.pop("case")
                for key in record.keys() - {"system", "n"}:
                    samples.setdefault(name, {}).setdefault(f"{case}.{key}", []).append(record[key])

    for turn in range(options.repeat):
        circumstances.note()
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
        **circumstances.report(),
        "results": {name: {key: summary(v) for key, v in keys.items()} for name, keys in samples.items()},
    }
    write_json(options.json, report)
    for name, keys in report["results"].items():
        print(name)
        for key, s in sorted(keys.items()):
            print(f"    {key:44} {s['median']:14,.3f}   ({s['min']:,.3f} ... {s['max']:,.3f})")
    print(f"written to {options.json}")


if __name__ == "__main__":
    try:
        main()
    except CommandError as error:
        sys.exit(str(error))
