"""Messages name a task's app, whoever looks after the call."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

import pytest

import mpitask
from mpitask import DependencyError, Engine, JoinError, WorkerLost, join_app, python_app
from mpitask.errors import first_line
from mpitask.futures import name_of
from mpitask.submission import _MOST_NAMES, _note


@pytest.fixture(autouse=True)
def engine() -> Iterator[Engine]:
    with mpitask.load(workers=2) as engine:
        yield engine


@python_app
def load(text: str, **_: Any) -> None:
    raise ValueError(f"{text}\nand more")


@python_app
def total(x: Any, **_: Any) -> Any:
    return x


@python_app
def die() -> None:
    os._exit(3)


kept = python_app(total.__wrapped__, cache=True)
kept_load = python_app(load.__wrapped__, cache=True)


@join_app
def joined() -> Any:
    return total(load("inside"))


def failed(future: Any) -> BaseException:
    error = future.exception(timeout=60)
    assert error is not None
    return error


def names(error: BaseException) -> tuple[str | None, ...]:
    assert isinstance(error, DependencyError)
    return error.names


@pytest.mark.parametrize("first", [load, kept_load])
@pytest.mark.parametrize("second", [total, kept])
@pytest.mark.parametrize("third", [total, kept])
def test_who_failed_and_who_did_not_run(first: Any, second: Any, third: Any) -> None:
    root = first("boom")
    via = second([root])
    last = third([via])
    assert names(failed(via)) == ("total", "load", "load")
    assert names(failed(last))[:2] == ("total", "total")
    assert names(failed(last))[2] in ("load", "total")  # a plain call knows of a managed one only that it failed
    assert f"task {via.tid} (total) was not run because task {root.tid} (load) failed: ValueError: boom" in str(
        failed(via)
    )


def test_repr_says_who_how_and_why() -> None:
    ended, root = total(1), load("boom")
    user = total(root)
    ended.result(timeout=60)
    failed(user)
    assert repr(ended) == f"<mpitask.Future of task {ended.tid} (total): done>"
    assert repr(root) == f"<mpitask.Future of task {root.tid} (load): failed, ValueError: boom>"
    because = f"because of task {root.tid} (load), ValueError: boom"
    assert repr(user) == f"<mpitask.Future of task {user.tid} (total): dependency_failed, {because}>"


def test_joins_and_lost_workers() -> None:
    error = failed(joined())
    assert isinstance(error, JoinError)
    assert error.names == ("joined", "total")
    assert "(joined) joins task" in str(error)
    lost = failed(die())
    assert isinstance(lost, WorkerLost)
    assert lost.name == "die"
    user = total(die())
    assert "(die) was lost" in str(failed(user))


def test_functions_of_executors_maps_and_items() -> None:
    class Callable:
        def __call__(self, x: int) -> int:
            return x

    executor = mpitask.Executor()
    assert name_of(executor.submit(Callable(), 1)) == "Callable"
    assert name_of(executor.submit(functools.partial(total.__wrapped__, 1))) == "total"
    results = mpitask.map(total.__wrapped__, [1, 2, 3])
    assert name_of(results.futures[1]) == "item 1 of the map of total"
    assert repr(results).startswith("<mpitask.MapFuture of total: ")
    assert name_of(total([1, 2])[1]) == "[1] of total"
    assert name_of(total(1).real) == ".real of total"


def test_a_dropped_function_keeps_its_name() -> None:
    def short_lived() -> None:
        raise ValueError("gone")

    future = python_app(short_lived)()
    del short_lived
    failed(future)
    assert "(short_lived)" in repr(future)


def test_names_are_bounded_and_first_lines_short() -> None:
    known: dict[int, str] = {}
    for i in range(_MOST_NAMES + 10):
        _note(known, i, "x")
    assert len(known) == _MOST_NAMES
    assert 0 not in known
    assert first_line(ValueError("a\nb")) == "ValueError: a"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 1000))) < 150
