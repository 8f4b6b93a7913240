"""`Executor`: the engine behind the interface of `concurrent.futures`."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import itertools
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from mpitask import codec, running
from mpitask.config import Config, make_config
from mpitask.engine import Engine, start_here
from mpitask.errors import ConfigurationError
from mpitask.futures import Future
from mpitask.worker.prepare import Preparation, PreparationError, Prepared

T = TypeVar("T")

_PLACEHOLDER = getattr(functools, "Placeholder", object())  # stands for an argument that is given later
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, type)
_FEW = 16  # futures that are kept, whether they have ended or not


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


def _chunks(chunksize: int, rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    rest = iter(rows)
    while chunk := list(itertools.islice(rest, chunksize)):
        yield chunk


def _flatten(chunks: Iterator[list[T]]) -> Iterator[T]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


class _Mine:
    """The futures of one executor that have not ended, and a few that have. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: list[Future[Any]] = []
        self._limit = _FEW

    def add(self, future: Future[Any]) -> None:
        with self._lock:
            futures = self._futures
            futures.append(future)
            if len(futures) > self._limit:
                futures[:] = [one for one in futures if not one.done()]
                self._limit = _FEW + 2 * len(futures)

    def all(self) -> list[Future[Any]]:
        with self._lock:
            return list(self._futures)


class Executor(concurrent.futures.Executor):
    """A complete `concurrent.futures.Executor`, to be put where a `ProcessPoolExecutor` was.

    Any thread may call any method. Under `python -m mpitask`, or inside `with mpitask.load():`, it uses that engine;
    otherwise it starts one of its own with `max_workers` worker processes, which ends with it. An executor that nobody
    shuts down finishes its tasks at the end of the program. In the arguments of a task it stands for the executor of
    that task's sub-tasks.

    Args:
        max_workers: worker processes; None: one for each core. No effect on an engine that is running already.
        mp_context: taken for the sake of callers that give one; workers are always fresh processes.
        initializer: called in each worker before the first task of this executor. If it raises, tasks end with
            BrokenExecutor, and so does `submit` from then on.
        initargs: its arguments.
        max_tasks_per_child: after so many tasks of this executor a worker process is replaced; None: never.
        config: further options of an engine of its own.

    Raises:
        ValueError: a number is wrong (a ConfigurationError), or an option of the configuration is.
        TypeError: `initializer` cannot be called, or `max_tasks_per_child` is no whole number.
        SerializationError: the initializer or its arguments cannot be pickled.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,  # noqa: ARG002
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        config: Config | None = None,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r}")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError(f"max_tasks_per_child must be an integer, not {max_tasks_per_child!r}")
            if max_tasks_per_child < 1:
                raise ConfigurationError(f"max_tasks_per_child must be >= 1, not {max_tasks_per_child}")
        if max_workers is not None and (not isinstance(max_workers, int) or max_workers < 1):
            raise ConfigurationError(f"max_workers must be greater than 0, not {max_workers!r}")
        shared = running.find()
        self._owned = shared is None
        self._mine: _Mine | None = None
        self._end: weakref.finalize[..., Executor] | None = None
        if shared is None:
            options = {} if max_workers is None else {"workers": max_workers}
            self._engine = start_here(make_config(config, options))
            self._end = weakref.finalize(self, _close_later, self._engine)
            self._end.atexit = False  # then the engine is closed with all others
        else:
            self._engine = shared
            self._mine = _Mine()
        self._retries = self._engine.config.retries
        self._open = True
        self._failure: PreparationError | None = None
        self._is_watched = initializer is not None
        self._preparation: Preparation | None = None
        if initializer is not None or max_tasks_per_child is not None:
            self._preparation = Preparation(initializer, tuple(initargs), max_tasks_per_child)
        self._prepared: dict[Callable[..., Any], Prepared] = {}

    def __getattr__(self, name: str) -> Any:
        """An executor that was an argument becomes the task's own when it is first used."""
        if self.__dict__.pop("_is_unused", False):
            Executor.__init__(self)
            return getattr(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _id_of(self, fn: Callable[..., Any]) -> int:
        """The id of what workers call for a function: that itself, or something that prepares the process first."""
        if self._preparation is None:
            return self._engine.function_id(fn)
        prepared = self._prepared.get(fn)
        if prepared is None:
            prepared = self._prepared[fn] = Prepared(self._preparation, fn)
        return self._engine.function_id(prepared)

    @property
    def _max_workers(self) -> int:
        return self._engine.max_workers

    @property
    def _broken(self) -> bool:
        return self._failure is not None

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submits one call. Futures in the arguments, at any depth, are waited for and replaced by their values.

        A plain function is sent to the workers once, until what it refers to changes; any other callable goes with each
        call.

        Raises:
            RuntimeError: after `shutdown`, or when the program is ending.
            BrokenExecutor: the initializer has failed.
            SerializationError: the function or an argument cannot be pickled.
        """
        engine = self._engine
        if not self._open:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not isinstance(fn, _FUNCTIONS):
            fn, args, kwargs = _taken_apart(fn, args, kwargs)
        if isinstance(fn, _FUNCTIONS):
            fn_id = self._id_of(fn)
        else:
            fn_id, args = self._id_of(_apply), (fn, *args)
        if self._is_watched and self._failure is not None:
            raise PreparationError(str(self._failure))
        future: Future[T] = engine.call(fn_id, args, kwargs, 0, self._retries)
        if fn is _apply_chunk or not isinstance(fn, _FUNCTIONS):
            future._called = codec.short_name(args[0])
        if self._mine is not None:
            self._mine.add(future)
        if self._is_watched:
            future.add_done_callback(functools.partial(_note_failure, weakref.ref(self)))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As `concurrent.futures.Executor.map`: values in order; with `chunksize`, that many calls make one task.

        Args:
            fn: takes one item of each iterable.
            *iterables: read to the end of the shortest; with `buffersize`, only as results are taken.
            timeout: seconds from this call until the last result.
            chunksize: calls in one task.
            buffersize: tasks whose results have not been taken; None: all are submitted now.

        Raises:
            ValueError: chunksize or buffersize is less than 1.
            TypeError: buffersize is no whole number.
            TimeoutError: while iterating, `timeout` seconds after this call.
        """
        return self.starmap(
            fn, zip(*iterables, strict=False), timeout=timeout, chunksize=chunksize, buffersize=buffersize
        )

    def starmap(
        self,
        fn: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        *,
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As `map`, for calls whose arguments are together already: `fn(*item)` for each item."""
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        if chunksize < 1:
            raise ValueError("chunksize must be 1 or more")
        deadline_s = None if timeout is None else time.monotonic() + timeout
        if chunksize == 1:
            return self._results(fn, map(tuple, iterable), deadline_s, buffersize)
        chunks = ((chunk,) for chunk in _chunks(chunksize, map(tuple, iterable)))
        return _flatten(self._results(functools.partial(_apply_chunk, fn), chunks, deadline_s, buffersize))

    def _results(
        self, fn: Callable[..., Any], rows: Iterator[tuple[Any, ...]], deadline_s: float | None, buffersize: int | None
    ) -> Iterator[Any]:
        futures = collections.deque(self.submit(fn, *row) for row in itertools.islice(rows, buffersize))
        return _in_order(futures, weakref.ref(self), fn, rows if buffersize else iter(()), deadline_s)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; ends an engine of its own once its tasks have ended.

        Args:
            wait: return only when everything has ended, the futures' callbacks included.
            cancel_futures: cancel what has not been sent to a worker.
        """
        engine = self._engine
        first, self._open = self._open, False
        mine = [] if self._mine is None else self._mine.all()
        if cancel_futures:
            if self._owned:
                engine.cancel_all()
            for future in mine:
                future.cancel()
        if not self._owned:
            if wait and first:
                concurrent.futures.wait(mine)
                engine.wait_for_callbacks(mine)
            return
        if self._end is not None:
            self._end.detach()
        if wait:
            engine.close()
        elif first:
            _close_later(engine)

    def __reduce__(self) -> Any:
        return _of_task, (type(self),)

    def __copy__(self) -> Executor:
        return self

    def __deepcopy__(self, _: Any) -> Executor:
        return self


def _of_task(kind: type[Executor]) -> Executor:
    """What an executor in the arguments becomes: without an engine until it is used."""
    executor = kind.__new__(kind)
    executor.__dict__["_is_unused"] = True
    return executor


def _note_failure(ref: weakref.ref[Executor], future: concurrent.futures.Future[Any]) -> None:
    executor = ref()
    if executor is None or future.cancelled():
        return
    error = future.exception()
    if isinstance(error, PreparationError):
        executor._failure = error


def _close_later(engine: Engine) -> None:
    """Ends an engine after its tasks, without waiting; the program ends after that."""
    try:
        threading.Thread(target=engine.close, name="mpitask-shutdown").start()
    except RuntimeError:  # the interpreter is ending, and engines with it
        return


def _in_order(
    futures: collections.deque[Future[Any]],
    ref: weakref.ref[Executor],
    fn: Callable[..., Any],
    rows: Iterator[tuple[Any, ...]],
    deadline_s: float | None,
) -> Iterator[Any]:
    """The results; what is left is cancelled when one is an exception, or nobody wants more."""
    try:
        while futures:
            executor = ref()
            row = None if executor is None else next(rows, None)
            if executor is not None and row is not None:
                futures.append(executor.submit(fn, *row))
            del executor
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            yield _taken(futures.popleft(), left_s)
    finally:
        for future in futures:
            future.cancel()


def _taken(future: Future[T], timeout: float | None) -> T:
    try:
        return future.result(timeout)
    except BaseException:
        future.cancel()  # after a timeout, or Ctrl-C
        raise
    finally:
        del future
