"""`@python_app`: calling the function makes a task of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from mpitask import engine as _engine
from mpitask.engine import Engine
from mpitask.errors import ConfigurationError
from mpitask.futures import Future

P = ParamSpec("P")
R = TypeVar("R")


class PythonApp(Generic[P, R]):
    """A function whose calls are tasks. Any thread may call it.

    The function, with what it captures, is sent to the workers as it is at the first call. The plain function is
    `__wrapped__`.
    """

    def __init__(self, fn: Callable[P, R], *, retries: int | None = None, priority: int = 0) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._retries = retries
        self._priority = priority
        self._engine: Engine | None = None
        self._fn_id = 0
        self._engine_retries = 0

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submits the call.

        Raises:
            NoEngineError: no engine is running.
            SerializationError: an argument or the function cannot be pickled.
        """
        engine = self._engine
        if engine is None or engine is not _engine._current:
            engine = self._bind()
        return engine.call(self._fn_id, args, kwargs, self._priority, self._engine_retries)

    def _bind(self) -> Engine:
        engine = _engine.current()
        self._fn_id = engine.function_id(self._fn)
        self._engine_retries = engine.config.retries if self._retries is None else self._retries
        self._engine = engine
        return engine

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Future[R]]:
        """As a method: the instance becomes the first argument."""
        return self if instance is None else functools.partial(self, instance)  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return _rebuild, (self._fn, self._retries, self._priority)

    def __repr__(self) -> str:
        return f"<python_app {getattr(self._fn, '__qualname__', self._fn)!r}>"


def _rebuild(fn: Callable[P, R], retries: int | None, priority: int) -> PythonApp[P, R]:
    return PythonApp(fn, retries=retries, priority=priority)


@overload
def python_app(function: Callable[P, R]) -> PythonApp[P, R]: ...


@overload
def python_app(
    function: None = None, *, retries: int | None = None, priority: int = 0
) -> Callable[[Callable[P, R]], PythonApp[P, R]]: ...


def python_app(function: Callable[..., Any] | None = None, *, retries: int | None = None, priority: int = 0) -> Any:
    """Makes an app of a function: `@python_app` or `@python_app(retries=2)`.

    Args:
        function: any callable that can be pickled by cloudpickle.
        retries: how often a call that fails is tried again; None: as the engine's configuration says.
        priority: calls with a higher one are started before waiting calls with a lower one.

    Raises:
        ConfigurationError: `function` is not callable, or an option is out of range.
    """
    if retries is not None and (not isinstance(retries, int) or retries < 0):
        raise ConfigurationError(f"retries={retries!r}: give a number, 0 or more")
    if not isinstance(priority, int) or not -(1 << 31) <= priority < 1 << 31:
        raise ConfigurationError(f"priority={priority!r}: give a 32-bit integer; a higher one runs first")
    if function is None:
        return functools.partial(_decorate, retries=retries, priority=priority)
    return _decorate(function, retries=retries, priority=priority)


def _decorate(function: Any, *, retries: int | None, priority: int) -> PythonApp[..., Any]:
    if not callable(function):
        raise ConfigurationError(f"python_app makes apps of functions, not of {function!r}")
    return PythonApp(function, retries=retries, priority=priority)
