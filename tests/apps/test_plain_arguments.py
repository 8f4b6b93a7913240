"""Arguments of calls around the limits of what a worker gets in one piece: size, number, what is not plain."""

from __future__ import annotations

import functools
import marshal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from apps_helpers import Asking, triple

import mpitask
from mpitask import Engine, python_app
from mpitask.native import lib

pytestmark = pytest.mark.usefixtures("engine")

WINDOW = lib.MT_WINDOW_BYTES
EDGES = 16


@python_app
def echo(x: Any) -> Any:
    return x


@python_app
def together(*args: Any) -> Any:
    return args


def text_for(size: int, *others: Any) -> str:
    """With it, the marshalled arguments have just this size."""
    return "t" * (size - len(marshal.dumps(("", *others), 2)))


@pytest.mark.parametrize("size", [WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_around_the_size(size: int) -> None:
    text = text_for(size, 5)
    values = [together(text, 5), together(text, echo(5)), together(echo(text), 5), together(echo(text), echo(5))]
    for future in values:
        assert future.result(timeout=60) == (text, 5)


@pytest.mark.parametrize("n", [EDGES - 1, EDGES, EDGES + 1, 200])
def test_around_the_number(n: int) -> None:
    assert together(*[echo(i) for i in range(n)], "end").result(timeout=60) == (*range(n), "end")


def test_the_same_future_more_than_once() -> None:
    future = echo(2.5)
    assert together(future, 1, future, future).result(timeout=60) == (2.5, 1, 2.5, 2.5)


def test_among_values_that_are_not_plain(engine: Engine) -> None:
    array = np.arange(3000.0)
    shared = mpitask.share({"a": 1})
    others = [echo([1, 2]), echo(array), echo({"k": None}), shared]
    for other in others:
        first, value, last = together(echo(1), other, echo(b"\x2e")).result(timeout=60)
        wanted = other.result(timeout=60)
        assert (first, last) == (1, b".")
        assert np.array_equal(value, wanted) if isinstance(wanted, np.ndarray) else value == wanted
    assert engine is mpitask.current()


def test_values_that_look_like_places() -> None:
    """An ellipsis is a full stop when it is marshalled."""
    args = ("...", b"...", 0x2E2E2E2E, -0x2E2E2E2E2E2E2E, ".", None, True, 2.5, 1j)
    assert together(*args, echo(".")).result(timeout=60) == (*args, ".")
    assert together(*[echo(arg) for arg in args]).result(timeout=60) == args


def test_an_ellipsis_itself() -> None:
    assert together(..., echo(1), ...).result(timeout=60) == (..., 1, ...)
    assert echo(...).result(timeout=60) is ...


def test_within_a_task_that_waits() -> None:
    """The task that waits has got its own arguments from where those of the next ones come to lie."""

    @python_app
    def outer(n: int, label: str) -> Any:
        parts = [together(echo(i), label) for i in range(n)]
        return [part.result() for part in parts], n, label

    assert outer(5, "x" * 100).result(timeout=60) == ([(i, "x" * 100) for i in range(5)], 5, "x" * 100)


# -- functions and arguments that run tasks while they are unpickled, as a module that is imported for them may do --


def call_loading(args: tuple[Any, Any]) -> Any:
    """The function is loaded by a worker for the first call of the two."""
    loading = python_app(functools.partial(triple, Asking()))
    result = loading(*args).result(timeout=60)
    assert loading(echo(2), echo("more")).result(timeout=60) == (42, 2, "more")
    return result


@pytest.mark.parametrize("args", [("a text", 7), ([1, 2], {"b": 3}), (echo, "x")], ids=["plain", "pickled", "an app"])
@pytest.mark.parametrize("is_within", [False, True], ids=["", "within a task"])
def test_a_function_that_runs_a_task_when_it_is_loaded(
    args: tuple[Any, Any], make_engine: Callable[..., Engine], *, is_within: bool
) -> None:
    """With one worker the tasks of a task run one within the other, and over one link."""
    call = python_app(call_loading, data_flow_kernel=make_engine(workers=1))
    result = call(args).result(timeout=60) if is_within else call_loading(args)
    assert (result[0], repr(result[1:])) == (42, repr(args))


def test_one_that_takes_futures(make_engine: Callable[..., Engine]) -> None:
    @python_app(data_flow_kernel=make_engine(workers=1))
    def outer() -> Any:
        plain, other = (python_app(functools.partial(triple, Asking())) for _ in range(2))
        first = plain(echo(1), echo("a text")).result(timeout=60)
        return first, str(other(echo([1]), echo("a text")).exception(timeout=60))

    first, error = outer().result(timeout=60)
    assert first == (42, 1, "a text")
    assert "must not wait for other tasks" in error


def test_an_argument_that_runs_a_task_when_it_is_unpickled(make_engine: Callable[..., Engine]) -> None:
    @python_app(data_flow_kernel=make_engine(workers=1))
    def outer() -> Any:
        return str(together(echo([0]), Asking(), echo([2])).exception(timeout=60))

    assert together(echo([0]), Asking(), echo([2])).result(timeout=60) == ([0], 42, [2])
    assert "must not wait for other tasks" in outer().result(timeout=60)
