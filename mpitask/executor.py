"""`Executor`: the engine behind the interface of `concurrent.futures`."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from mpitask import running
from mpitask.config import Config, make_config
from mpitask.engine import start_here
from mpitask.errors import ConfigurationError
from mpitask.futures import Future

T = TypeVar("T")

_PLACEHOLDER = getattr(functools, "Placeholder", object())  # stands for an argument that is given later
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, type)


def _apply(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    return fn(*args, **kwargs)


def _apply_chunk(fn: Callable[..., T], chunk: list[tuple[Any, ...]]) -> list[T]:
    return [fn(*args) for args in chunk]


def _taken_apart(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The same call of a function that can be sent once, where there is one in a partial or a bound method."""
    while True:
        if type(fn) is functools.partial and not any(arg is _PLACEHOLDER for arg in fn.args):
            fn, args, kwargs = fn.func, fn.args + args, fn.keywords | kwargs
        elif type(fn) is types.MethodType and type(fn.__func__) is types.FunctionType:
            fn, args = fn.__func__, (fn.__self__, *args)
        else:
            return fn, args, kwargs


def _chunks(chunksize: int, *iterables: Iterable[Any]) -> Iterator[list[tuple[Any, ...]]]:
    rows = zip(*iterables, strict=False)
    while chunk := list(itertools.islice(rows, chunksize)):
        yield chunk


def _flatten(chunks: Iterator[list[T]]) -> Iterator[T]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


class Executor(concurrent.futures.Executor):
    """A complete `concurrent.futures.Executor`. Any thread may call any method.

    Under `python -m mpitask`, or inside `with mpitask.load():`, it uses that engine; otherwise it starts one of its
    own with `max_workers` worker processes, which ends with it.

    Args:
        max_workers: worker processes; None: one for each core. No effect on an engine that is running already.
        config: further options of an engine of its own.

    Raises:
        ConfigurationError: an option is wrong.
    """

    def __init__(self, max_workers: int | None = None, *, config: Config | None = None) -> None:
        shared = running.find()
        self._owned = shared is None
        self._mine: weakref.WeakSet[Future[Any]] | None = None
        if shared is None:
            options = {} if max_workers is None else {"workers": max_workers}
            self._engine = start_here(make_config(config, options))
        else:
            if max_workers is not None and (not isinstance(max_workers, int) or max_workers < 1):
                raise ConfigurationError(f"max_workers={max_workers!r}: give a number, 1 or more")
            self._engine = shared
            self._mine = weakref.WeakSet()
        self._apply_id = self._engine.function_id(_apply)
        self._retries = self._engine.config.retries
        self._open = True

    @property
    def _max_workers(self) -> int:
        return self._engine.max_workers

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submits one call. Futures in the arguments, at any depth, are waited for and replaced by their values.

        A plain function is sent to the workers once, until what it refers to changes; any other callable goes with each
        call.

        Raises:
            RuntimeError: after `shutdown`.
            SerializationError: the function or an argument cannot be pickled.
        """
        if not self._open:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not isinstance(fn, _FUNCTIONS):
            fn, args, kwargs = _taken_apart(fn, args, kwargs)
        if isinstance(fn, _FUNCTIONS):
            fn_id = self._engine.function_id(fn)
        else:
            fn_id, args = self._apply_id, (fn, *args)
        future: Future[T] = self._engine.call(fn_id, args, kwargs, 0, self._retries)
        if self._mine is not None:
            self._mine.add(future)
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """As `concurrent.futures.Executor.map`: values in order; with `chunksize`, that many calls make one task.

        Raises:
            ValueError: chunksize is less than 1.
            TimeoutError: while iterating, `timeout` seconds after this call.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be 1 or more")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        chunks = _chunks(chunksize, *iterables)
        return _flatten(super().map(functools.partial(_apply_chunk, fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; ends an engine of its own once its tasks have ended.

        Args:
            wait: return only when everything has ended.
            cancel_futures: cancel what has not been sent to a worker.
        """
        first, self._open = self._open, False
        if cancel_futures:
            if self._owned:
                self._engine.cancel_all()
            else:
                for future in list(self._mine or ()):
                    future.cancel()
        if not first:
            return
        if not self._owned:
            if wait:
                concurrent.futures.wait(list(self._mine or ()))
        elif wait:
            self._engine.close()
        else:
            threading.Thread(target=self._engine.close, name="mpitask-shutdown").start()
