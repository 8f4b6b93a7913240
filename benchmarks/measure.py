"""Measures one system in this process and prints one JSON line for each case.

    python benchmarks/measure.py pool throughput=20000
    python -m mpitask --workers 2 benchmarks/measure.py mpitask throughput=100000 round_trip=2000

The systems: mpitask (whatever engine the script runs under), ppe (concurrent.futures.ProcessPoolExecutor), pool
(multiprocessing.Pool.apply_async), mpi4py (mpi4py.futures), parsl (its HighThroughputExecutor), dask (distributed) and
ray. All are measured by the same code; a case that a system cannot express (a task that takes the future of another)
is refused, not imitated. Where a system has a faster way to get many results at once than one after the other, it is
used (`System.results`).
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

HERE = str(Path(__file__).resolve().parent)
WORKERS = 2
Result = dict[str, float]
BULK_CHUNK = 10_000  # for systems that want to be told


def one_by_one(futures: Sequence[Any]) -> Iterable[Any]:
    return (future.result() for future in futures)


@dataclass(frozen=True)
class System:
    """How a system makes a function return a future, and how it maps a function over many items in any order."""

    bind: Callable[[Callable[..., Any]], Callable[..., Any]]
    bulk: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
    results: Callable[[Sequence[Any]], Iterable[Any]] = one_by_one
    takes_futures: bool = False
    """Whether futures may be arguments of further tasks."""
    futures_in_lists: bool = True
    """Whether they are looked for inside of lists, too."""

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """As `bind`."""
        return self.bind(fn)


def noop(x: Any) -> Any:
    return x


def nothing(_: Any) -> None:
    pass


def first_of(x: Any, _: Any) -> Any:
    return x


def true() -> str:
    return "true"


def count(values: list[Any]) -> int:
    return len(values)


def count_all(*values: Any) -> int:
    return len(values)


def each(fn: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [fn(item) for item in items]


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
    total = sum(bind.results(futures))
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
    """A task that takes the futures of all others; their submission is part of the time."""
    task, gather = bind(noop), bind(count if bind.futures_in_lists else count_all)
    start = time.perf_counter()
    futures = [task(i) for i in range(n)]
    last = gather(futures) if bind.futures_in_lists else gather(*futures)
    assert last.result() == n
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "us_per_task": seconds / n * 1e6}


def dataflow(bind: System, n: int) -> Result:
    """Layers of 1000 tasks; each takes the futures of two tasks of the layer before. Submission is part of the time."""
    first, add = bind(noop), bind(first_of)
    start = time.perf_counter()
    layer = [first(i) for i in range(1000)]
    for _ in range(n // 1000):
        layer = [add(layer[i - 1], layer[i]) for i in range(1000)]
    assert sum(bind.results(layer)) == 999 * 500
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


def _map(bind: System, fn: Callable[[Any], Any], n: int) -> Result:
    start = time.perf_counter()
    assert sum(1 for _ in bind.bulk(fn, range(n))) == n
    return {"tasks_per_s": n / (time.perf_counter() - start)}


def bulk(bind: System, n: int) -> Result:
    """A map over a range of a function that does and gives nothing, results counted as they come."""
    return _map(bind, nothing, n)


def bulk_values(bind: System, n: int) -> Result:
    """The same of one that gives its argument back: a number for each item travels."""
    return _map(bind, noop, n)


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
    for case in (
        throughput,
        round_trip,
        chain,
        fan_in,
        dataflow,
        bulk,
        bulk_values,
        array,
        cache_hit,
        bash,
        memory,
        waves,
    )
}
FUTURES_TAKEN = {"chain", "fan_in", "dataflow"}
OWN = {"cache_hit", "bash"}


class _Async:
    """multiprocessing's AsyncResult with the method of a future."""

    __slots__ = ("result",)

    def __init__(self, pending: Any) -> None:
        self.result = pending.get


class _Ref:
    """A reference of Ray with the method of a future."""

    __slots__ = ("get", "ref")

    def __init__(self, get: Callable[[Any], Any], ref: Any) -> None:
        self.get, self.ref = get, ref

    def result(self) -> Any:
        return self.get(self.ref)


def in_chunks(
    bind: Callable[..., Any], results: Callable[..., Iterable[Any]], fn: Callable[[Any], Any], items: Sequence[Any]
) -> Iterator[Any]:
    """A map for systems without one: a task for each chunk."""
    task = bind(each)
    chunks = [task(fn, items[i : i + BULK_CHUNK]) for i in range(0, len(items), BULK_CHUNK)]
    for chunk in results(chunks):
        yield from chunk


@contextlib.contextmanager
def system(name: str) -> Iterator[System]:
    """How a system turns a function into one that returns a future."""
    if name == "mpitask":
        import mpitask

        with mpitask.load():
            yield System(mpitask.python_app, functools.partial(mpitask.map, ordered=False), takes_futures=True)
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
    elif name == "parsl":
        with parsl_system() as found:
            yield found
    elif name == "dask":
        with dask_system() as found:
            yield found
    elif name == "ray":
        with ray_system() as found:
            yield found
    else:
        sys.exit(f"unknown system {name!r}: mpitask, ppe, pool, mpi4py, parsl, dask or ray")


@contextlib.contextmanager
def parsl_system() -> Iterator[System]:
    """Parsl with a HighThroughputExecutor: worker processes of this machine, which take tasks ahead."""
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where its programs are
    with tempfile.TemporaryDirectory() as folder:
        executor = HighThroughputExecutor(
            label="htex",
            address="127.0.0.1",
            loopback_address="127.0.0.1",
            max_workers_per_node=WORKERS,
            prefetch_capacity=4 * WORKERS,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
            encrypted=False,
        )
        config = Config(executors=[executor], strategy="none", run_dir=folder, initialize_logging=False)
        with parsl.load(config):
            bind = parsl.python_app
            yield System(bind, functools.partial(in_chunks, bind, one_by_one), takes_futures=True)


@contextlib.contextmanager
def dask_system() -> Iterator[System]:
    """Dask's distributed scheduler with worker processes of this machine, each with one thread for tasks."""
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def bind(fn: Callable[..., Any]) -> Callable[..., Any]:
            return functools.partial(client.submit, fn, pure=False)

        yield System(bind, functools.partial(in_chunks, bind, client.gather), client.gather, takes_futures=True)


@contextlib.contextmanager
def ray_system() -> Iterator[System]:
    """Ray on this machine alone."""
    import ray

    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 500_000_000}
    try:
        ray.init(num_cpus=WORKERS, **options)
    except Exception:  # noqa: BLE001 - on a busy machine its 30 s are not enough for a first start
        ray.shutdown()
        ray.init(num_cpus=WORKERS, **options)

    def bind(fn: Callable[..., Any]) -> Callable[..., Any]:
        remote = ray.remote(fn).remote
        return lambda *args: _Ref(ray.get, remote(*[arg.ref if type(arg) is _Ref else arg for arg in args]))

    def results(futures: Sequence[Any]) -> Iterable[Any]:
        return ray.get([future.ref for future in futures])

    try:
        bulk = functools.partial(in_chunks, bind, results)
        yield System(bind, bulk, results, takes_futures=True, futures_in_lists=False)
    finally:
        ray.shutdown()


def warm_up(bind: System) -> None:
    """Tasks until all that is made once is there: 4000, or what 2 s allow for."""
    task = bind(noop)
    end = time.perf_counter() + 2
    for _ in range(20):
        for future in [task(i) for i in range(200)]:
            future.result()
        if time.perf_counter() > end:
            break


def main(name: str, *wanted: str) -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))  # for workers
    with system(name) as bind:
        warm_up(bind)
        for word in wanted:
            case, _, n = word.partition("=")
            if (case in OWN and name != "mpitask") or (case in FUTURES_TAKEN and not bind.takes_futures):
                sys.exit(f"{name} cannot express it: {case} cannot be measured")
            print(json.dumps({"system": name, "case": case, "n": int(n), **CASES[case](bind, int(n))}), flush=True)


if __name__ == "__main__":
    import measure  # so that functions are this module's wherever they run, and no system has to send their code

    measure.main(*sys.argv[1:])
