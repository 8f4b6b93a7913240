"""A large array that many small tasks read: share() against a future's value and against sending it with each call.

python benchmarks/share.py [--mb 100] [--tasks 1000] [--repeat 3] [--json build/share.json]

Each task adds up one thousandth of the array, so that what is measured is how the array gets there. Each way runs in a
process of its own with two workers, the ways taking turns; `call` runs one task of 250, for it is slow. The
time is from the first call (the sharing included) to the last result; memory is what all processes have between them
beyond what they had before (proportional set size).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import PY, Circumstances, CommandError, end_in_order, machine, markdown, number, run, summary, write_json

WAYS = {"share": 1, "future": 1, "call": 250}
"""Way -> by how much fewer tasks it runs."""


def part_of(array: Any, i: int) -> float:
    """The sum of one thousandth."""
    length = len(array) // 1000
    start = i % 1000 * length
    return float(array[start : start + length].sum())


def memory_mb() -> float:
    """What this process and those below it have, shared pages divided among those that share them."""
    everyone = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(process.memory_full_info().pss for process in everyone) / 1e6


def measure(way: str, mb: int, tasks: int) -> None:
    """Prints the record of one way."""
    import mpitask

    app = mpitask.python_app(part_of)
    with mpitask.load(workers=2) as engine:
        while engine.stats()["slots"] < 2:
            time.sleep(0.01)
        array = np.arange(mb * 1_000_000 // 8, dtype=float)
        given: Any = array
        if way == "future":
            given = mpitask.python_app(np.arange)(len(array), dtype=float)
            given.result()
        assert [app(np.ones(1000), i).result() for i in range(10)] == [1.0] * 10
        before = memory_mb()
        start = time.perf_counter()
        if way == "share":
            given = mpitask.share(array)
        futures = [app(given, i) for i in range(tasks)]
        first = futures[0].result()
        first_s = time.perf_counter() - start
        found = sum(future.result() for future in futures)
        elapsed = time.perf_counter() - start
        grown_mb = memory_mb() - before
        assert first == part_of(array, 0)
        assert found == sum(part_of(array, i) for i in range(tasks))
    record = {"ms_per_task": elapsed / tasks * 1e3, "first_result_s": first_s, "memory_mb": grown_mb}
    print(json.dumps({"system": "mpitask", "case": way, "n": tasks, **record}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=100, help="size of the array (default 100)")
    parser.add_argument("--tasks", type=int, default=1000, help="default 1000")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--json", type=Path, default=Path("build/share.json"))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        measure(options.way, options.mb, options.tasks)
        return
    end_in_order()
    circumstances = Circumstances()
    samples: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for _ in range(options.repeat):
        for way, fewer in WAYS.items():
            circumstances.note()
            n = max(1, options.tasks // fewer)
            command = [PY, __file__, "--way", way, "--mb", str(options.mb), "--tasks", str(n)]
            for record in run(command, 300):
                for key in record.keys() - {"system", "case", "n"}:
                    samples[way].setdefault(key, []).append(record[key])
    results = {way: {key: summary(v) for key, v in sorted(keys.items())} for way, keys in samples.items()}
    report = {
        "machine": machine(),
        **circumstances.report(),
        "sizes": {"mb": options.mb, "tasks": {way: max(1, options.tasks // fewer) for way, fewer in WAYS.items()}},
        "results": results,
    }
    write_json(options.json, report)
    rows = [[key, *[number(results[way][key]["median"]) for way in WAYS]] for key in results["share"]]
    print(markdown(["", *WAYS], rows))
    print(f"written to {options.json}")


if __name__ == "__main__":
    try:
        main()
    except CommandError as error:
        sys.exit(str(error))
