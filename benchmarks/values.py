"""Graphs whose values are 100 kB each, next to a process pool whose client passes them on: `diamond` and `reduce`.

    python benchmarks/values.py [--tasks 1000] [--bytes 100000] [--rounds 5] [--json FILE]

diamond: one value goes to every task of the middle, and all their values to the last one. reduce: values without
inputs, all to the last one. Both as in the synthetic application of the TaPS suite. The systems take turns, two workers
each, which have run before; what is counted is from the first call to the last value.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from common import machine, write_json

import mpitask

WORKERS = 2


def make(size: int) -> bytes:
    return bytes(size)


def pass_on(data: bytes, size: int) -> bytes:
    return bytes(size) if data else b""


def count(values: list[bytes]) -> int:
    return sum(map(len, values))


def diamond_with_futures(tasks: int, size: int) -> int:
    """Futures as arguments."""
    first = mpitask.python_app(make)(size)
    middle = [mpitask.python_app(pass_on)(first, size) for _ in range(tasks)]
    return mpitask.python_app(count)(middle).result()


def reduce_with_futures(tasks: int, size: int) -> int:
    """Futures as arguments."""
    return mpitask.python_app(count)([mpitask.python_app(make)(size) for _ in range(tasks)]).result()


def diamond_with_pool(pool: ProcessPoolExecutor, tasks: int, size: int) -> int:
    """The client waits for values and sends them."""
    first = pool.submit(make, size).result()
    middle = [pool.submit(pass_on, first, size) for _ in range(tasks)]
    return pool.submit(count, [future.result() for future in middle]).result()


def reduce_with_pool(pool: ProcessPoolExecutor, tasks: int, size: int) -> int:
    """The client waits for values and sends them."""
    return pool.submit(count, [f.result() for f in [pool.submit(make, size) for _ in range(tasks)]]).result()


def seconds(run: Callable[[], int], expected: int) -> float:
    started = time.perf_counter()
    got = run()
    taken = time.perf_counter() - started
    assert got == expected
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description="Graphs with values of 100 kB")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--bytes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tasks, size = options.tasks, options.bytes
    found: dict[str, list[float]] = {}
    with ProcessPoolExecutor(WORKERS) as pool, mpitask.load(workers=WORKERS):
        cases: dict[str, Callable[[], int]] = {
            "diamond, mpitask": lambda: diamond_with_futures(tasks, size),
            "diamond, process pool": lambda: diamond_with_pool(pool, tasks, size),
            "reduce, mpitask": lambda: reduce_with_futures(tasks, size),
            "reduce, process pool": lambda: reduce_with_pool(pool, tasks, size),
        }
        for run in cases.values():
            run()
        for _ in range(options.rounds):
            for name, run in cases.items():
                found.setdefault(name, []).append(seconds(run, tasks * size))
    for name, all_s in found.items():
        print(f"{name:<24}{statistics.median(all_s):8.3f} s  ({min(all_s):.3f} to {max(all_s):.3f})")
    if options.json:
        write_json(options.json, {"machine": machine(), "seconds": found})


if __name__ == "__main__":
    main()
