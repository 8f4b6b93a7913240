"""Sub-tasks of sub-tasks of sub-tasks: they wait in one thread, on one stack, and each has the room that a task has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mpitask import load, python_app

LIMIT_S = 100


@pytest.fixture(params=["process", "inline"])
def one(request: pytest.FixtureRequest) -> Iterator[None]:
    with load(inline=True) if request.param == "inline" else load(workers=1):
        yield


def frames(n: int) -> int:
    return 0 if n == 0 else 1 + frames(n - 1)


@python_app
def dive(n: int, room: int = 0) -> int:
    if n == 0:
        return frames(room)
    return 1 + int(dive(n - 1, room=room).result())


@python_app
def sink(n: int) -> int:
    if n == 0:
        raise LookupError("the bottom")
    return int(sink(n - 1).result())


@python_app
def sound(n: int) -> str:
    try:
        return "the bottom" if n == 0 else str(sound(n - 1).result())
    except RecursionError as error:
        return str(error)


def test_hundreds_deep(one: None) -> None:
    assert dive(600).result(timeout=LIMIT_S) == 600


def test_the_deepest_may_go_as_deep_as_any(one: None) -> None:
    assert dive(300, room=700).result(timeout=LIMIT_S) == 1000


def test_an_exception_comes_up_from_there(one: None) -> None:
    with pytest.raises(LookupError, match="the bottom"):
        sink(150).result(timeout=LIMIT_S)


def test_too_deep_is_an_error_that_says_so(one: None) -> None:
    assert sound(2100).result(timeout=LIMIT_S).startswith("2,000 tasks wait in one thread")
    assert dive(20).result(timeout=LIMIT_S) == 20
