"""Measures mpitask and its peers in turn and writes medians, ratios and a table.

    python benchmarks/compare.py --python /path/to/peers/bin/python --json build/compare.json

The peers that are not in Python's library may live in an environment of their own, so that none has to be installed
beside mpitask: `python -m venv peers; peers/bin/pip install parsl 'dask[distributed]' ray numpy psutil`. What is not
found there is listed as absent. All systems have two workers and are measured by the same code (measure.py), each in
a process of its own. A ratio says how many times better mpitask with local workers was in the same round; the table
shows the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from common import (
    HERE,
    PY,
    SYSTEMS,
    Circumstances,
    CommandError,
    cell,
    end_in_order,
    machine,
    markdown,
    prefixes,
    run,
    summary,
    write_json,
)

FIRST = "mpitask"
ROWS = {
    "throughput.tasks_per_s": "no-op tasks per second, submitted one by one",
    "round_trip.median_us": "round trip of one task, median, µs",
    "chain.us_per_link": "chain of tasks, µs per link",
    "fan_in.us_per_task": "many tasks into one, µs per task",
    "array.gb_per_s": "1 MB arrays, GB/s in and out",
    "bulk.tasks_per_s": "map of no-ops, items per second",
    "bulk_values.tasks_per_s": "the same, of a function that gives its argument back",
}
FAST = {
    "throughput": 100_000,
    "round_trip": 3000,
    "chain": 5000,
    "fan_in": 10_000,
    "array": 200,
    "bulk": 5_000_000,
    "bulk_values": 5_000_000,
}
POOLS = {"throughput": 10_000, "round_trip": 1000, "array": 40, "bulk": 2_000_000, "bulk_values": 2_000_000}
SLOW = {
    "throughput": 2000,
    "round_trip": 200,
    "chain": 200,
    "fan_in": 2000,
    "array": 40,
    "bulk": 500_000,
    "bulk_values": 500_000,
}
SIZES = {
    "mpitask": FAST,
    "mpiexec": FAST,
    "ppe": POOLS,
    "pool": POOLS,
    "mpi4py": POOLS | {"throughput": 2000, "round_trip": 200},
    "parsl": SLOW,
    "dask": SLOW,
    "ray": SLOW,
}


def words(name: str, share: float) -> list[str]:
    return [f"{case}={max(16, round(n * share))}" for case, n in SIZES[name].items()]


def once(name: str, prefix: list[str], share: float, timeout_s: float) -> dict[str, float]:
    """One round of a system.

    Raises:
        CommandError: it failed.
    """
    system = "mpitask" if name == "mpiexec" else name
    return flat(run([*prefix, str(HERE / "measure.py"), system, *words(name, share)], timeout_s))


def flat(records: list[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for record in records:
        case = record.pop("case")
        found |= {f"{case}.{key}": value for key, value in record.items() if key not in {"system", "n"}}
    return found


def ratio(key: str, ours: float, theirs: float) -> float:
    return ours / theirs if key.endswith("per_s") else theirs / ours


def ratios(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """How many times better mpitask was: medians over the rounds that have both."""
    found: dict[str, dict[str, float]] = {}
    for name, theirs in rounds.items():
        for key in ROWS:
            samples = [
                ratio(key, a[key], b[key])
                for a, b in zip(rounds.get(FIRST, []), theirs, strict=False)
                if key in a and key in b
            ]
            if samples and name != FIRST:
                found.setdefault(name, {})[key] = statistics.median(samples)
    return found


def table(results: dict[str, dict[str, Any]], better: dict[str, dict[str, float]], names: list[str]) -> str:
    rows = []
    for key, label in ROWS.items():
        row = [label]
        for name in names:
            row.append(cell(results.get(name, {}).get(key), better.get(name, {}).get(key)))
        rows.append(row)
    return markdown(["", *[SYSTEMS[name] for name in names]], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=PY, help="interpreter that has Parsl, Dask and Ray (default: this one)")
    parser.add_argument("--json", type=Path, default=Path("build/compare.json"))
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--systems", nargs="*", choices=list(SYSTEMS), default=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--share", type=float, default=1, help="of the usual numbers of tasks (default 1)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one system in one round")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for a quiet machine before each turn")
    options = parser.parse_args()
    end_in_order()
    commands = prefixes(options.systems, options.python)
    absent = [name for name in options.systems if name not in commands]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    failures: dict[str, list[str]] = {}
    circumstances = Circumstances()
    for turn in range(options.repeat):
        for name, prefix in commands.items():
            print(f"round {turn + 1}/{options.repeat}: {SYSTEMS[name]}", file=sys.stderr, flush=True)
            circumstances.wait(options.wait)
            circumstances.note()
            try:
                rounds[name].append(once(name, prefix, options.share, options.timeout))
            except CommandError as error:
                print(error, file=sys.stderr)
                failures.setdefault(name, []).append(str(error))
                rounds[name].append(flat(error.records))
    results = {
        name: {key: summary([r[key] for r in found if key in r]) for key in sorted(set().union(*found))}
        for name, found in rounds.items()
    }
    better = ratios(rounds)
    report = {
        "machine": machine(options.python),
        **circumstances.report(),
        "absent": absent,
        "failures": failures,
        "results": results,
        "ratios": better,
        "rounds": rounds,
    }
    write_json(options.json, report)
    print(table(results, better, list(commands)))
    if absent:
        print(f"not installed: {', '.join(SYSTEMS[name] for name in absent)}")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
