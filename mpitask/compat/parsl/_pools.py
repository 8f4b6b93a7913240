"""What a kernel gives calls to that are not simply the engine's: executors of this process, limits, refusals.

Each has the `submit` of `concurrent.futures.Executor`, whose future may hold an exception; it never raises.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from mpitask.compat.parsl._options import specification_of
from mpitask.compat.parsl.app.errors import RemoteExceptionWrapper, wrap_error
from mpitask.compat.parsl.executors.base import ParslExecutor
from mpitask.compat.parsl.executors.threads import ThreadPoolExecutor
from mpitask.engine import Engine
from mpitask.worker.call import call_within


class Refusal(concurrent.futures.Executor):
    """Fails every call with one exception."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ARG002
        """A future with the exception."""
        return _failed(self._error)


class Local(concurrent.futures.Executor):
    """Gives calls to an executor of this process: threads, or one that the script brought along."""

    def __init__(self, executor: ParslExecutor) -> None:
        self._executor = executor
        self._foreign = not isinstance(executor, ThreadPoolExecutor)

    @property
    def returns_all(self) -> bool:
        """Whether the executor's `shutdown` returns after every call that it was given has ended."""
        return not self._foreign

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The executor's future; of a foreign one, with its way of handing back exceptions undone."""
        spec = specification_of(kwargs)
        try:
            ran = self._executor.submit(wrap_error(fn) if self._foreign else fn, spec, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a specification that it does not take, or a pool that has ended
            return _failed(error)
        if not self._foreign:
            return ran
        outcome: Future[Any] = Future()
        ran.add_done_callback(lambda ended: _copy(ended, outcome))
        return outcome


class Limited:
    """A function with the walltime of its call, for threads."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self._fn = fn
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it."""
        return call_within(kwargs.get("walltime"), self._name, functools.partial(self._fn, *args, **kwargs))


class Gate(concurrent.futures.Executor):
    """Gives calls to the engine, no more than `limit` at a time. Any thread may call it."""

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._free = limit
        self._lock = threading.Lock()
        self._waiting: collections.deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = (
            collections.deque()
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future that ends as the call does."""
        outcome: Future[Any] = Future()
        with self._lock:
            self._waiting.append((outcome, fn, args, kwargs))
        self._start()
        return outcome

    def _start(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or not self._free:
                    return
                self._free -= 1
                outcome, fn, args, kwargs = self._waiting.popleft()
            if not outcome.set_running_or_notify_cancel():
                self._give_back()
                continue
            try:
                call: Future[Any] = self._engine.call(self._engine.function_id(fn), args, kwargs)
            except Exception as error:  # noqa: BLE001 - arguments that cannot be pickled, an engine that has ended
                self._give_back()
                outcome.set_exception(error)
                continue
            call.add_done_callback(functools.partial(self._ended, outcome))

    def _give_back(self) -> None:
        with self._lock:
            self._free += 1

    def _ended(self, outcome: Future[Any], call: Future[Any]) -> None:
        self._give_back()
        self._start()
        _copy(call, outcome)


def _failed(error: BaseException) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _copy(ran: Future[Any], outcome: Future[Any]) -> None:
    """Ends `outcome` as `ran` has ended; exceptions that were handed back as values are raised."""
    try:
        error = ran.exception()
        value = ran.result() if error is None else None
    except BaseException as raised:  # noqa: BLE001 - cancelled, or a value that cannot be unpickled
        error, value = raised, None
    if isinstance(value, RemoteExceptionWrapper):
        error = value.get_exception()
    if error is None:
        outcome.set_result(value)
    else:
        outcome.set_exception(error)
