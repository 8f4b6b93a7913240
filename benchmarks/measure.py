"""Measures one system in this process and prints one JSON line for each case.

    python benchmarks/measure.py pool throughput=20000
    python -m mpitask --workers 2 benchmarks/measure.py mpitask throughput=100000 round_trip=2000

The systems: mpitask (whatever engine the script runs under), ppe (concurrent.futures.ProcessPoolExecutor), pool
(multiprocessing.Pool.apply_async) and mpi4py (mpi4py.futures). All are measured by the same code; a case that a system
cannot express (a task that takes the future of another) is refused, not imitated.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

WORKERS = 2
Result = dict[str, float]
BULK_CHUNK = 10_000  # for systems that want to be told


@dataclass(frozen=True)
class System:
    """How a system makes a function return a future, and how it maps a function over many items in any order."""

    bind: Callable[[Callable[..., Any]], Callable[..., Any]]
    bulk: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """As `bind`."""
        return self.bind(fn)


def noop(x: Any) -> Any:
    return x


def first_of(x: Any, _: Any) -> Any:
    return x


def true() -> str:
    return "true"


def count(values: list[Any]) -> int:
    return len(values)


def increment(array: np.ndarray) -> np.ndarray:
    return array + 1


def wait_for(path: str) -> None:
    while not os.path.exists(path):  # noqa: PTH110 - it runs every millisecond
        time.sleep(0.001)


def throughput(bind: System, n: int) -> Result:
    """Tasks submitted one by one, all results read in order."""
    task = bind(noop)
    start = time.perf_counter()
    futures = [task(i) for i in range(n)]
    submitted = time.perf_counter()
    total = sum(future.result() for future in futures)
    end = time.perf_counter()
    assert total == n * (n - 1) // 2
    return {"tasks_per_s": n / (end - start), "submits_per_s": n / (submitted - start)}


def round_trip(bind: System, n: int) -> Result:
    """One task at a time: submit, wait, next."""
    task = bind(noop)
    times = []
    for i in range(n):
        start = time.perf_counter()
        assert task(i).result() == i
        times.append((time.perf_counter() - start) * 1e6)
    return {"median_us": statistics.median(times), "p99_us": statistics.quantiles(times, n=100)[98]}


def chain(bind: System, n: int) -> Result:
    """Each task takes the future of the one before."""
    task = bind(noop)
    start = time.perf_counter()
    last = task(0)
    for _ in range(n - 1):
        last = task(last)
    assert last.result() == 0
    return {"us_per_link": (time.perf_counter() - start) / n * 1e6}


def fan_in(bind: System, n: int) -> Result:
    """A task that takes the futures of all others in a list; their submission is part of the time."""
    task, gather = bind(noop), bind(count)
    start = time.perf_counter()
    assert gather([task(i) for i in range(n)]).result() == n
    return {"seconds": time.perf_counter() - start}


def dataflow(bind: System, n: int) -> Result:
    """Layers of 1000 tasks; each takes the futures of two tasks of the layer before. Submission is part of the time."""
    first, add = bind(noop), bind(first_of)
    start = time.perf_counter()
    layer = [first(i) for i in range(1000)]
    for _ in range(n // 1000):
        layer = [add(layer[i - 1], layer[i]) for i in range(1000)]
    assert sum(future.result() for future in layer) == 999 * 500
    return {"tasks_per_s": n / (time.perf_counter() - start)}


def cache_hit(bind: System, n: int) -> Result:
    """A memoised call whose result is known, read at once."""
    del bind
    import mpitask

    task = mpitask.python_app(cache=True)(noop)
    assert task(7).result() == 7
    times = []
    for _ in range(n):
        start = time.perf_counter()
        assert task(7).result() == 7
        times.append((time.perf_counter() - start) * 1e6)
    return {"median_us": statistics.median(times)}


def bash(bind: System, n: int) -> Result:
    """Commands per second, and the same with a bare loop of posix_spawn in as many processes."""
    del bind
    import mpitask

    task = mpitask.bash_app(true)
    for future in [task() for _ in range(8)]:
        future.result()
    start = time.perf_counter()
    for future in [task() for _ in range(n)]:
        assert future.result() == 0
    apps = n / (time.perf_counter() - start)
    start = time.perf_counter()
    loops = [os.fork() for _ in range(WORKERS)]
    if 0 in loops:
        for _ in range(n // WORKERS):
            os.waitpid(os.posix_spawn("/bin/bash", ["/bin/bash", "-c", "true"], os.environ), 0)
        os._exit(0)
    for pid in loops:
        os.waitpid(pid, 0)
    bare = n // WORKERS * WORKERS / (time.perf_counter() - start)
    return {"commands_per_s": apps, "share_of_posix_spawn": apps / bare}


def bulk(bind: System, n: int) -> Result:
    """A map of no-ops over a range, results counted as they come."""
    start = time.perf_counter()
    assert sum(1 for _ in bind.bulk(noop, range(n))) == n
    return {"tasks_per_s": n / (time.perf_counter() - start)}


def array(bind: System, n: int) -> Result:
    """Arrays of 1 MB go to a task and another comes back, eight at a time; both directions are counted."""
    task = bind(increment)
    data = np.zeros(1_000_000, dtype=np.uint8)
    start = time.perf_counter()
    for _ in range(n // 8):
        for future in [task(data) for _ in range(8)]:
            assert future.result()[-1] == 1
    return {"gb_per_s": 2 * data.nbytes * (n // 8 * 8) / (time.perf_counter() - start) / 1e9}


def memory(bind: System, n: int) -> Result:
    """Growth of this process for each task that waits for a worker, its future included."""
    task, block = bind(noop), bind(wait_for)
    with tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "gate"
        blocked = [block(str(gate)) for _ in range(4 * WORKERS)]
        for future in [task(i) for i in range(8)]:  # whatever is allocated once
            del future
        process = psutil.Process()
        before = process.memory_info().rss
        futures = [task(i) for i in range(n)]
        grown = process.memory_info().rss - before
        gate.touch()
        for future in blocked + futures:
            future.result()
    return {"bytes_per_task": grown / n}


def waves(bind: System, n: int) -> Result:
    """Ten waves of n/10 tasks: rate and resident memory of the first two and the last two."""
    process = psutil.Process()
    rates, sizes = [], []
    for _ in range(10):
        rates.append(throughput(bind, n // 10)["tasks_per_s"])
        sizes.append(process.memory_info().rss)
    return {
        "tasks_per_s": statistics.median(rates),
        "last_rate_over_first": statistics.mean(rates[-2:]) / statistics.mean(rates[:2]),
        "last_rss_over_first": sizes[-1] / sizes[0],
        "rss_mb": sizes[-1] / 1e6,
    }


CASES = {
    case.__name__: case
    for case in (throughput, round_trip, chain, fan_in, dataflow, bulk, array, cache_hit, bash, memory, waves)
}
OWN = {"chain", "fan_in", "dataflow", "cache_hit", "bash"}


class _Async:
    """multiprocessing's AsyncResult with the method of a future."""

    __slots__ = ("result",)

    def __init__(self, pending: Any) -> None:
        self.result = pending.get


@contextlib.contextmanager
def system(name: str) -> Iterator[System]:
    """How a system turns a function into one that returns a future."""
    if name == "mpitask":
        import mpitask

        with mpitask.load():
            yield System(mpitask.python_app, functools.partial(mpitask.map, ordered=False))
    elif name == "ppe":
        with ProcessPoolExecutor(WORKERS) as executor:
            chunks = functools.partial(executor.map, chunksize=BULK_CHUNK)
            yield System(lambda fn: lambda *args: executor.submit(fn, *args), chunks)
    elif name == "pool":
        with multiprocessing.Pool(WORKERS) as pool:
            chunks = functools.partial(pool.imap_unordered, chunksize=BULK_CHUNK)
            yield System(lambda fn: lambda *args: _Async(pool.apply_async(fn, args)), chunks)
    elif name == "mpi4py":
        from mpi4py.futures import MPIPoolExecutor

        with MPIPoolExecutor() as executor:
            chunks = functools.partial(executor.map, chunksize=BULK_CHUNK, unordered=True)
            yield System(lambda fn: lambda *args: executor.submit(fn, *args), chunks)
    else:
        sys.exit(f"unknown system {name!r}: mpitask, ppe, pool or mpi4py")


def main(name: str, *wanted: str) -> None:
    with system(name) as bind:
        warm = bind(noop)
        for _ in range(2):
            for future in [warm(i) for i in range(2000)]:
                future.result()
        for word in wanted:
            case, _, n = word.partition("=")
            if case in OWN and name != "mpitask":
                sys.exit(f"{name} cannot express it: {case} cannot be measured")
            print(json.dumps({"system": name, "case": case, "n": int(n), **CASES[case](bind, int(n))}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
