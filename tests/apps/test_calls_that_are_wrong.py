"""What is wrong with a decorator or a call is said there and then, with the remedy; what is right still works."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import mpitask
from mpitask import AppTimeout, ConfigurationError, bash_app, join_app, python_app

pytestmark = pytest.mark.usefixtures("engine")


def two(a: int, b: int = 2, *, c: int = 3) -> tuple[int, int, int]:
    return a, b, c


def rest(*args: int, **kwargs: int) -> Any:
    return args, kwargs


def wrapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    def give_more(x: int) -> Any:
        return fn(x, 2)

    give_more.__wrapped__ = fn  # type: ignore[attr-defined]  # a signature that is not the real one
    return give_more


async def coroutine() -> None: ...


def generator() -> Any:
    yield 1


async def both() -> Any:
    yield 1


class AsyncCall:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional"),
        ((1,), {"d": 4}, "unexpected keyword argument 'd'"),
        ((1,), {"a": 4}, "multiple values for argument 'a'"),
        ((), {"b": 4}, "missing a required argument: 'a'"),
    ],
)
def test_arguments_are_looked_at_by_the_call(args: Any, kwargs: Any, text: str) -> None:
    app = python_app(two)
    for _ in range(2):  # at the first call, and when it is bound
        with pytest.raises(TypeError, match=rf"^two\(\): .*{text}"):
            app(*args, **kwargs)
        assert app(1, c=5).result(timeout=60) == (1, 2, 5)
        assert app(1, 4).result(timeout=60) == (1, 4, 3)


def test_whoever_takes_anything_gets_it() -> None:
    assert python_app(rest)(1, priority=2, retries=3).result(timeout=60) == ((1,), {"priority": 2, "retries": 3})
    assert python_app(wrapped(two))(1).result(timeout=60) == (1, 2, 3)
    assert python_app(max)(1, 2).result(timeout=60) == 2
    assert python_app(two)(python_app(abs)(-1)).result(timeout=60) == (1, 2, 3)


def test_options_of_a_call() -> None:
    tries: list[int] = []

    def fails(x: int) -> int:
        raise ValueError(x)

    with pytest.raises(ValueError, match="7"):
        python_app(fails)(7, retries=2).result(timeout=60)
    assert python_app(two)(1, priority=-3, walltime=60, label="mine").result(timeout=60) == (1, 2, 3)
    with pytest.raises(ConfigurationError, match="retries=-1"):
        python_app(two)(1, retries=-1)
    with pytest.raises(ConfigurationError, match="priority='high'"):
        python_app(two)(1, priority="high")
    assert not tries

    @join_app
    def joined(x: int) -> Any:
        return python_app(abs)(x)

    assert joined(-2, priority=1, label="j").result(timeout=60) == 2


def test_retries_of_a_call_are_made(tmp_path: Any) -> None:
    path = str(tmp_path / "tries")

    def at_third(name: str) -> int:
        with open(name, "a+") as file:  # noqa: PTH123
            file.write("x")
            file.seek(0)
            count = len(file.read())
        if count < 3:
            raise ValueError(count)
        return count

    assert python_app(at_third)(path, retries=2).result(timeout=60) == 3


def test_a_walltime_for_all_calls() -> None:
    @python_app(walltime=0.05)
    def sleeps(seconds: float) -> str:
        time.sleep(seconds)
        return "awake"

    with pytest.raises(AppTimeout, match=r"sleeps.*0\.05"):
        sleeps(60).result(timeout=60)
    assert sleeps(0.1, walltime=60).result(timeout=60) == "awake"

    @bash_app(walltime=0.05)
    def naps() -> str:
        return "sleep 60"

    with pytest.raises(AppTimeout):
        naps().result(timeout=60)
    with pytest.raises(ConfigurationError, match="walltime=-1"):
        python_app(walltime=-1)


@pytest.mark.parametrize("decorate", [python_app, bash_app, join_app])
@pytest.mark.parametrize("fn", [coroutine, generator, both, AsyncCall()])
def test_functions_that_give_no_value_are_refused(decorate: Any, fn: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"async def.*asyncio\.run|generator function.*[Rr]eturn a list"):
        decorate(fn)


@pytest.mark.parametrize("decorate", [python_app, bash_app, join_app])
def test_misspelt_options(decorate: Any) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'retries'"):
        decorate(retry=3)
    with pytest.raises(ConfigurationError, match="did you mean 'walltime'"):
        decorate(abs, waltime=3)
    with pytest.raises(ConfigurationError, match="did you mean 'chunksize'"):
        mpitask.map(abs, [1], chunk_size=3)
