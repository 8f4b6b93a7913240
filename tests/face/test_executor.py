"""Executor: the interface of concurrent.futures, as its own test-suite would ask."""

from __future__ import annotations

import concurrent.futures
import os
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


def test_wrong_workers() -> None:
    with pytest.raises(mpitask.ConfigurationError):
        Executor(max_workers=0)


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
