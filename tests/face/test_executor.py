"""Executor: the interface of concurrent.futures, as its own test-suite would ask."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import contextlib
import copy
import functools
import itertools
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpitask
from mpitask import Executor


def square(x: int) -> int:
    return x * x


def sleep_then(x: float) -> float:
    time.sleep(x)
    return x


def fail_at(x: int) -> int:
    if x == 3:
        raise KeyError(x)
    return x


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(max_workers=2) as executor:
        yield executor


def test_is_an_executor(executor: Executor) -> None:
    assert isinstance(executor, concurrent.futures.Executor)
    assert executor._max_workers == 2


def test_submit(executor: Executor) -> None:
    assert executor.submit(square, 5).result() == 25
    assert executor.submit(pow, 2, exp=5).result() == 32
    assert executor.submit(os.getpid).result() != os.getpid()
    assert executor.submit("-".join, ["a", "b"]).result() == "a-b"


def test_bound_methods_are_not_cached(executor: Executor) -> None:
    class Counter:
        n = 0

        def get(self) -> int:
            return self.n

    counter = Counter()
    assert executor.submit(counter.get).result() == 0
    counter.n = 5
    assert executor.submit(counter.get).result() == 5


def test_dependencies(executor: Executor) -> None:
    futures = [executor.submit(square, i) for i in range(10)]
    assert executor.submit(sum, futures).result() == 285


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map(executor: Executor, chunksize: int) -> None:
    assert list(executor.map(square, range(20), chunksize=chunksize)) == [i * i for i in range(20)]
    assert list(executor.map(pow, [2, 3], [4, 5, 6], chunksize=chunksize)) == [16, 243]
    assert list(executor.map(square, [], chunksize=chunksize)) == []
    results = executor.map(fail_at, range(5), chunksize=chunksize)
    with pytest.raises(KeyError):
        list(results)


def test_map_timeout_and_bad_chunks(executor: Executor) -> None:
    with pytest.raises(TimeoutError):
        list(executor.map(sleep_then, [0, 3], timeout=0.1))
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=0)


def test_shutdown_refuses_and_finishes() -> None:
    executor = Executor(max_workers=1)
    futures = [executor.submit(sleep_then, 0.02) for _ in range(5)]
    executor.shutdown()
    assert all(f.done() for f in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    executor.shutdown()


def wait_for(path: Path) -> str:
    while not path.exists():
        time.sleep(0.01)
    return path.name


def test_shutdown_without_waiting(tmp_path: Path) -> None:
    executor = Executor(max_workers=1)
    gate = tmp_path / "gate"
    futures = [executor.submit(wait_for, gate) for _ in range(3)]
    executor.shutdown(wait=False)
    assert not any(f.done() for f in futures)
    gate.touch()
    assert [f.result(timeout=60) for f in futures] == ["gate"] * 3
    for thread in threading.enumerate():
        if thread.name == "mpitask-shutdown":
            thread.join(60)


def test_cancel_futures() -> None:
    executor = Executor(max_workers=1)
    futures = [executor.submit(sleep_then, 0.1) for _ in range(20)]
    futures[0].result()
    executor.shutdown(cancel_futures=True)
    states = [f.cancelled() for f in futures]
    assert not states[0]
    assert states[-1]
    assert all(f.done() for f in futures)


def test_many_engines_side_by_side() -> None:
    with Executor(max_workers=1) as a, Executor(max_workers=1) as b:
        crossed = b.submit(square, a.submit(square, 3))
        assert crossed.result(timeout=60) == 81


def test_inside_load_it_shares_the_engine() -> None:
    with mpitask.load(workers=1) as engine:
        with Executor() as executor:
            future = executor.submit(square, 4)
        assert future.done()
        assert executor._engine is engine
        assert mpitask.current() is engine


def test_inline() -> None:
    with Executor(config=mpitask.Config(inline=True)) as executor:
        assert executor.submit(os.getpid).result() == os.getpid()


@pytest.mark.parametrize("workers", [0, -1, "two"])
def test_wrong_workers(workers: Any) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        Executor(max_workers=workers)


def set_up(*values: int) -> None:
    os.environ["MPITASK_TEST_SET_UP"] = repr(values)
    os.umask(0o027)
    os.chdir("/")


def look() -> str:
    mask = os.umask(0)
    os.umask(mask)
    seen = os.environ.get("MPITASK_TEST_SET_UP", "")
    return seen if (Path.cwd(), mask) == (Path("/"), 0o027) else f"{Path.cwd()} {mask}"


def spoil() -> None:
    os.environ["MPITASK_TEST_SET_UP"] = "a task's"
    os.umask(0)
    os.chdir("/usr")


def count_and_set_up(path: Path) -> None:
    with path.open("a") as file:
        file.write("once\n")


@pytest.mark.parametrize("shared", [False, True])
def test_initializer(shared: bool, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        if shared:
            stack.enter_context(mpitask.load(workers=2))
        context = multiprocessing.get_context("spawn")
        executor = stack.enter_context(Executor(2, context, set_up, (1, 2)))
        assert {f.result() for f in [executor.submit(look) for _ in range(20)]} == {"(1, 2)"}
        concurrent.futures.wait([executor.submit(spoil) for _ in range(4)])  # a task's own changes go
        assert executor.submit(functools.partial(look)).result() == "(1, 2)"
        assert set(executor.map(lambda _: look(), range(6), chunksize=2)) == {"(1, 2)"}
        path = tmp_path / "calls"
        once = stack.enter_context(Executor(2, initializer=count_and_set_up, initargs=(path,)))
        pids = set(once.map(lambda _: os.getpid(), range(50)))
        assert len(path.read_text().splitlines()) == len(pids)


def test_an_initializer_that_fails_breaks_the_executor() -> None:
    def fail() -> None:
        raise LookupError("what it needs is missing")

    with Executor(1, initializer=fail) as executor:
        futures = [executor.submit(square, i) for i in range(3)]
        for future in futures:
            with pytest.raises(concurrent.futures.BrokenExecutor, match="what it needs is missing"):
                future.result(60)
        deadline = time.monotonic() + 60
        while not executor._broken and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(concurrent.futures.BrokenExecutor, match="what it needs is missing"):
            executor.submit(square, 1)


def test_wrong_options() -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        Executor(1, initializer=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="max_tasks_per_child must be an integer"):
        Executor(1, max_tasks_per_child=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_tasks_per_child must be >= 1"):
        Executor(1, max_tasks_per_child=0)


@pytest.mark.parametrize("most", [1, 3])
def test_workers_with_a_limited_life(most: int) -> None:
    with Executor(2, max_tasks_per_child=most) as executor:
        pids = [future.result(60) for future in [executor.submit(os.getpid) for _ in range(20)]]
        assert max(map(pids.count, pids)) <= most


def test_starmap(executor: Executor) -> None:
    assert list(executor.starmap(pow, [(2, 3), [3, 2]])) == [8, 9]
    assert list(executor.starmap(pow, iter([(2, i) for i in range(7)]), chunksize=3)) == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_with_a_buffer_reads_as_results_are_taken(executor: Executor, chunksize: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in itertools.count():
            taken.append(i)
            yield i

    results = executor.map(square, items(), buffersize=4, chunksize=chunksize)
    assert len(taken) == 4 * chunksize
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= (4 + 3) * chunksize
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        executor.map(square, [1], buffersize=0)
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        executor.map(square, [1], buffersize="1")  # type: ignore[arg-type]


class Model:
    """Something of a user's that keeps its pool."""

    def __init__(self, pool: Executor) -> None:
        self.pool = pool

    def total(self, n: int) -> int:
        return sum(self.pool.map(square, range(n)))


def test_an_executor_in_an_argument_is_that_of_the_sub_tasks(executor: Executor) -> None:
    model = Model(executor)
    assert executor.submit(model.total, 5).result(60) == 30
    assert executor.submit(Model.total, copy.deepcopy(model), 4).result(60) == 14
    assert copy.copy(executor) is executor
    assert executor.submit(lambda pool: isinstance(pool, Executor), executor).result(60)


@pytest.mark.parametrize("shared", [False, True])
def test_when_the_block_is_over_tasks_and_callbacks_are(shared: bool, tmp_path: Path) -> None:
    gate, called = tmp_path / "gate", []

    def note(future: Any) -> None:
        time.sleep(0.02)
        called.append(future)

    with mpitask.load(workers=1) if shared else contextlib.nullcontext(), Executor(1) as executor:
        for _ in range(60):
            executor.submit(square, 1).add_done_callback(note)
        executor.submit(wait_for, gate)
        executor.submit((tmp_path / "made").touch)  # its future is dropped
        gate.touch()
    assert len(called) == 60
    assert (tmp_path / "made").exists()


def test_the_dropped_futures_of_a_shared_engine_are_waited_for(tmp_path: Path) -> None:
    with mpitask.load(workers=1):
        with Executor() as executor:
            for i in range(100):
                executor.submit((tmp_path / str(i)).touch)
        assert len(list(tmp_path.iterdir())) == 100


def test_errors_are_those_of_a_process_pool() -> None:
    with Executor(1) as executor:
        lost = executor.submit(os._exit, 3)
        with pytest.raises(concurrent.futures.process.BrokenProcessPool) as caught:
            lost.result(60)
        assert isinstance(caught.value, mpitask.WorkerLost)
        again = pickle.loads(pickle.dumps(caught.value))
        assert isinstance(again, concurrent.futures.process.BrokenProcessPool)
        assert (type(again).__name__, str(again)) == ("WorkerLost", str(caught.value))
        with pytest.raises(pickle.PicklingError):
            executor.submit(square, threading.Lock())
    assert issubclass(mpitask.WorkerLost, concurrent.futures.BrokenExecutor)
    assert issubclass(mpitask.EngineClosedError, RuntimeError)
    assert issubclass(mpitask.NoEngineError, RuntimeError)
    assert issubclass(mpitask.ConfigurationError, ValueError)


def test_one_worker_for_each_core_by_default() -> None:
    with Executor() as executor:
        assert executor._max_workers == len(os.sched_getaffinity(0))


def test_initial_state_of_forked_child_is_safe() -> None:
    """A fork of the root has no engine, and its end does not disturb the parent's."""
    with mpitask.load(workers=1) as engine:
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                mpitask.current()
                code = 1
            except mpitask.NoEngineError:
                pass
            os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        fn: Any = engine.function_id(square)
        assert engine.call(fn, (6,), {}).result() == 36
