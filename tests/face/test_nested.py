"""Tasks that submit tasks: they wait for them as a script does, on however few workers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import operator
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpitask
from mpitask import load, python_app

LIMIT_S = 60


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.long)], ids=["1-worker", "2-workers"])
def workers(request: pytest.FixtureRequest) -> Iterator[int]:
    with load(workers=request.param):
        yield request.param


@pytest.fixture(params=["process", "inline"])
def one(request: pytest.FixtureRequest) -> Iterator[None]:
    with load(inline=True) if request.param == "inline" else load(workers=1):
        yield


@python_app
def add(a: Any, b: Any = 0) -> Any:
    return a + b


@python_app
def fail(text: str) -> None:
    raise LookupError(text)


@python_app
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@python_app
def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1).result() + fib(n - 2).result()


@python_app
def fib_all_at_once(n: int) -> int:
    if n < 2:
        return n
    a, b = fib_all_at_once(n - 1), fib_all_at_once(n - 2)
    return a.result() + b.result()


def call(fn: Any, *args: Any) -> Any:
    """Runs a function of this module as a task."""
    return python_app(fn)(*args).result(timeout=LIMIT_S)


def sums(n: int) -> int:
    return sum(future.result() for future in [add(i, 1) for i in range(n)])


def test_an_app_in_an_app(one: None) -> None:
    assert call(sums, 100) == 5050


def test_recursion(workers: int) -> None:
    assert fib(11).result(timeout=LIMIT_S) == 89
    assert fib_all_at_once(11).result(timeout=LIMIT_S) == 89


def test_recursion_in_an_inline_worker() -> None:
    with load(inline=True):
        assert fib_all_at_once(9).result(timeout=LIMIT_S) == 34


def squares(n: int) -> tuple[list[int], int]:
    def square(x: int) -> int:
        return x * x

    return mpitask.map(square, range(n)).result(), mpitask.map(square, range(n)).reduce(operator.add).result()


def test_map_in_a_task(one: None) -> None:
    values, total = call(squares, 500)
    assert values == [x * x for x in range(500)]
    assert total == sum(values)


def iterated(n: int) -> list[int]:
    return list(mpitask.map(lambda x: -x, (i for i in range(n)), chunksize=3))


def test_iterating_over_a_map_of_a_generator(one: None) -> None:
    assert call(iterated, 50) == [-i for i in range(50)]


def chain(n: int) -> int:
    future = add(0, 1)
    for _ in range(n):
        future = add(future, 1)
    nested = add({"deep": [future]}["deep"][0], 1)
    return nested.result()


def test_dependencies_between_sub_tasks(one: None) -> None:
    assert call(chain, 30) == 32


def large() -> int:
    data = add(b"x" * 300_000, b"y" * 300_000)  # far more than a ring holds
    return sum(len(future.result()) for future in [add(data, b"z") for _ in range(5)])


def test_large_values_between_sub_tasks(workers: int) -> None:
    assert call(large) == 5 * 600_001


def leaf(i: int) -> int:
    return i


def middle(i: int) -> int:
    app = python_app(leaf)
    return sum(future.result() for future in [app(i), app(i), app(i)])


def top(i: int) -> int:
    app = python_app(middle)
    return sum(future.result() for future in [app(i) for _ in range(20)])


def test_all_workers_wait() -> None:
    with load(workers=2):
        app = python_app(top)
        futures = [app(i) for i in range(8)]
        assert [f.result(timeout=LIMIT_S) for f in futures] == [60 * i for i in range(8)]


def told_of_a_failure() -> tuple[str, str]:
    try:
        fail("what is missing").result()
    except LookupError as error:
        return str(error), str(error.__cause__)
    return "", ""


def test_an_exception_of_a_sub_task(one: None) -> None:
    message, cause = call(told_of_a_failure)
    assert message == "what is missing"
    assert "raise LookupError(text)" in cause


def passes_a_failure_on() -> None:
    fail("from below").result()


def test_an_exception_that_nobody_catches(one: None) -> None:
    with pytest.raises(LookupError, match="from below") as caught:
        call(passes_a_failure_on)
    assert "passes_a_failure_on" in str(caught.value.__cause__)


def not_run() -> str:
    try:
        add(fail("first"), 1).result()
    except mpitask.DependencyError as error:
        return str(error)
    return ""


def test_a_sub_task_whose_argument_failed(one: None) -> None:
    assert "first" in call(not_run)


def retried(path: str) -> int:
    @python_app(retries=3)
    def attempt() -> int:
        with Path(path).open("a") as file:
            file.write("x")
        if Path(path).stat().st_size < 3:
            raise OSError("not yet")
        return Path(path).stat().st_size

    return attempt().result()


def test_retries_of_a_sub_task(one: None, tmp_path: Path) -> None:
    assert call(retried, str(tmp_path / "attempts")) == 3


def other_ways() -> dict[str, Any]:
    found: dict[str, Any] = {}
    futures = [add(i, 1) for i in range(20)]
    found["wait"] = len(concurrent.futures.wait(futures).done)
    found["as_completed"] = sorted(f.result() for f in concurrent.futures.as_completed([add(i, 1) for i in range(20)]))
    future = add(1, 1)
    while not future.done():
        time.sleep(0.001)
    found["done"] = future.result()
    event = threading.Event()
    add(1, 2).add_done_callback(lambda _: event.set())
    found["callback"] = event.wait(60)
    in_thread: list[int] = []
    thread = threading.Thread(target=lambda: in_thread.append(add(2, 2).result()))
    thread.start()
    thread.join()
    found["thread"] = in_thread
    with mpitask.Executor() as executor:
        found["executor"] = list(executor.map(abs, [-1, -2]))
    with load():
        found["load"] = add(3, 3).result()
    return found


def test_other_ways_to_wait(workers: int) -> None:
    assert call(other_ways) == {
        "wait": 20,
        "as_completed": list(range(1, 21)),
        "done": 2,
        "callback": True,
        "thread": [4],
        "executor": [1, 2],
        "load": 6,
    }


def leave_behind(path: str) -> str:
    def write(name: str) -> None:
        Path(path, name).write_text(name)

    app = python_app(write)
    for i in range(10):
        app(str(i))
    return "over"


def test_sub_tasks_that_nobody_waits_for_are_run(workers: int, tmp_path: Path) -> None:
    assert call(leave_behind, str(tmp_path)) == "over"
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(i) for i in range(10)]


def returns_a_future() -> Any:
    return add(1, 1)


def test_a_future_cannot_leave_its_task(workers: int) -> None:
    with pytest.raises(mpitask.SerializationError, match="a task must return a value, not a future"):
        call(returns_a_future)


def survives(n: int) -> list[str]:
    found = []
    for future in [die() for _ in range(n)]:
        try:
            future.result()
        except mpitask.WorkerLost as error:
            found.append(error.what)
    return found


def test_a_sub_task_kills_its_worker() -> None:
    """It may be the worker of the task that waits for it: then that one is lost, too, and tried again."""

    @python_app(retries=100)
    def outer() -> list[str]:
        return survives(1)

    with load(workers=2):
        with contextlib.suppress(mpitask.WorkerLost):
            assert outer().result(timeout=LIMIT_S) == ["worker"]
        assert add(1, 1).result(timeout=LIMIT_S) == 2


def submits_and_dies(path: str) -> None:
    def work(i: int) -> int:
        time.sleep(0.01)
        return i

    app = python_app(work)
    futures = [app(i) for i in range(50)]
    futures[3].result()
    Path(path).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_task_that_submitted_is_lost(workers: int, tmp_path: Path) -> None:
    engine = mpitask.current()
    with pytest.raises(mpitask.WorkerLost):
        call(submits_and_dies, str(tmp_path / "reached"))
    assert (tmp_path / "reached").exists()
    assert call(sums, 20) == 210
    engine.wait(timeout=LIMIT_S)


def test_dropping_an_engine_with_sub_tasks_under_way(tmp_path: Path) -> None:
    def forever() -> None:
        def sleep() -> None:
            Path(tmp_path, "begun").touch()
            time.sleep(600)

        app = python_app(sleep)
        concurrent.futures.wait([app() for _ in range(4)])

    engine = load(workers=2)
    python_app(forever)()
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    start = time.monotonic()
    assert engine.close(drop=True)
    assert time.monotonic() - start < 60


def test_other_workers_take_part() -> None:
    def where() -> int:
        time.sleep(0.02)
        return os.getpid()

    def spread(n: int) -> set[int]:
        app = python_app(where)
        return {future.result() for future in [app() for _ in range(n)]}

    with load(workers=3):
        assert len(call(spread, 150)) == 3


def test_a_task_shares_with_its_sub_tasks(one: None) -> None:
    @python_app
    def sums(n: int) -> list[float]:
        table = mpitask.share(np.arange(200_000.0))
        return [float(f.result()) for f in [python_app(lambda t, i: t[i])(table, i) for i in range(n)]]

    assert sums(5).result(timeout=60) == [0.0, 1.0, 2.0, 3.0, 4.0]
