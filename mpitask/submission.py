"""The half of an engine that takes things in: functions, calls, shared objects, promises, futures from elsewhere."""

from __future__ import annotations

import concurrent.futures
import contextlib
import marshal
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mpitask import codec
from mpitask.config import Config
from mpitask.errors import FORKED, EngineClosedError, MpitaskError, NoEngineError, SerializationError
from mpitask.futures import Future, Promise
from mpitask.native import check, ffi, lib, system_error
from mpitask.shared import Shared
from mpitask.unseen import Unseen
from mpitask.watch import Check, watch
from mpitask.worker.runner import Runner

T = TypeVar("T")
F = TypeVar("F", bound=Future[Any])

_FIRST_STATUS = 1 << 63  # a handle above is a status: see mt_driver_submit
_SCALARS = codec.SCALARS
_FUTURES: set[type] = {Future, Shared}  # kinds of which the handle is a plain attribute
_MARSHAL, _FLAT, _NAMED = codec.MARSHAL, codec.FLAT, codec.MARSHAL | codec.KWARGS
_MOST_NAMES = 1 << 14  # kept for messages, about 1 MB; the oldest go first
_dumps = marshal.dumps
_submit, _submit_edges = lib.mt_driver_submit, lib.mt_driver_submit_edges


def goes_flat(kind: type[Future[Any]]) -> None:
    """Says of a kind of future that its handle is a plain attribute, so that `call_flat` may take it."""
    _FUTURES.add(kind)


class Submission:
    """What can be given to an engine. Any thread may call any method. Futures know their engine as this."""

    def __init__(self, config: Config, driver: Any) -> None:
        self.config = config
        self._driver = driver
        self._lock = threading.Lock()
        self._unseen = Unseen(driver)
        self._functions: dict[int, _Known] = {}  # by id()
        self._names: dict[int, str] = {}  # of functions, for messages: by their ids, also after they are gone
        self._ended_names: dict[int, str] = {}  # of promises that have failed, by their numbers
        self._captured: dict[int, list[Future[Any]]] = {}  # what functions capture: edges of every call, the last first
        self._runners: dict[int, Runner] = {}  # by thread: those who run tasks while they wait
        self._adopted: weakref.WeakKeyDictionary[concurrent.futures.Future[Any], Future[Any]] = (
            weakref.WeakKeyDictionary()
        )

    def wait_for(self, handle: int, timeout_ns: int) -> int:
        """Waits for a task."""
        raise NotImplementedError

    def _watch(self, handle: int, future: Future[Any]) -> bool:
        raise NotImplementedError

    def _with_surroundings(self, fn: Callable[..., Any]) -> Any:
        """What workers are sent of a function: with what the script has set around itself."""
        raise NotImplementedError

    # -- names --

    def name_of(self, number: int, fn: int) -> str | None:
        """The name of a task's app; None: it is not known. `fn`: the id of its function, 0 for a promise."""
        return self._names.get(fn) if fn else self._ended_names.get(number)

    def note_name(self, number: int, name: str) -> None:
        """The name of a promise that is about to fail, for the messages of tasks that need it."""
        _note(self._ended_names, number, name)

    # -- functions --

    def function_id(self, fn: Callable[..., Any]) -> int:
        """A function's id at the workers, good as long as the function itself is there.

        What the function captures is sent as it is now. If it refers to something else at a later call (see `watch`),
        it is sent anew, with another id.

        Raises:
            SerializationError: the function cannot be pickled.
        """
        known = self._functions.get(id(fn))
        if known is not None and known.get() is fn and (known.check is None or known.check(fn)):
            return known.number
        return self._send(fn).number

    def check_of(self, fn: Callable[..., Any]) -> Check | None:
        """What says whether the `function_id` that was given out last is still good; None: always."""
        return self._functions[id(fn)].check

    def _send(self, fn: Callable[..., Any]) -> _Known:
        captured = _Captured(self)
        seen = watch(fn)  # first: what changes meanwhile has changed
        data = codec.encode_function(self._with_surroundings(fn), captured)
        with self._lock:
            number = lib.mt_driver_new_object_id(self._driver)
            if number > _FIRST_STATUS:
                self._raise_if_failed()
                check(number - (1 << 64), "numbering a function")
            status = lib.mt_driver_add_object(self._driver, number, codec.PICKLE, data, len(data))
            check(status, "registering a function")
            name = codec.short_name(fn)
            if name is not None:
                _note(self._names, number, name)
            if captured.found:
                self._captured[number] = captured.found
            known = self._functions.get(id(fn))
            if known is None or known.get() is not fn:
                known = self._functions[id(fn)] = _Known(weakref.ref(self), fn)
            stale = known.replace(number, seen)
        if stale:
            _drop_function(self, stale)
        return known

    def combine_id(self, fn: Callable[[codec.Parts], Any]) -> int:
        """A `function_id` for `call_span`; 0: it captures shared objects, and ranks could not call it."""
        number = self.function_id(fn)
        return 0 if number in self._captured else number

    # -- calls --

    def _priority_here(self) -> int:
        """What is added to the priority of a task that this thread submits: more within tasks."""
        runner = self._runners.get(threading.get_ident())
        return 0 if runner is None else int(lib.mt_worker_within(runner.worker))

    def call(  # noqa: PLR0917 - for every task, and keywords cost
        self,
        fn_id: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        priority: int = 0,
        retries: int = 0,
        make: type[F] = Future,  # type: ignore[assignment]
    ) -> F:
        """Submits one call of a registered function; its future is made by `make(engine, handle)`.

        Raises:
            SerializationError: an argument cannot be pickled.
            EngineClosedError: the engine has ended.
        """
        future: F | None = None
        if not kwargs:
            future = self.call_flat(fn_id, args, priority, retries, make)
        elif not priority and not retries:
            future = self.call_named(fn_id, args, kwargs, make)
        if future is None:
            if self._runners:
                priority += self._priority_here()
            future = make(self, self._submit_with(fn_id, args, kwargs, priority, retries))
        return future

    def call_named(self, fn_id: int, args: tuple[Any, ...], kwargs: dict[str, Any], make: type[F]) -> F | None:
        """As `call`, if all arguments are plain scalars, or empty dicts; else None."""
        if self._runners or (self._captured and fn_id in self._captured):
            return None
        if not _SCALARS.issuperset(map(type, args)):
            return None
        if not _SCALARS.issuperset(map(type, kwargs.values())):
            for value in kwargs.values():
                if type(value) not in _SCALARS and not (type(value) is dict and not value):
                    return None
        try:
            data = _dumps((args, kwargs), 2)
        except ValueError:  # too large for marshal
            return None
        while (handle := _submit(self._driver, fn_id, _NAMED, data, len(data))) >= _FIRST_STATUS:
            self._raise_status(handle)
        return make(self, handle)

    def call_flat(
        self,
        fn_id: int,
        args: tuple[Any, ...],
        priority: int,
        retries: int,
        make: type[F] = Future,  # type: ignore[assignment]
    ) -> F | None:
        """As `call`, if the arguments are plain scalars and futures of this engine, as most are; else None."""
        if self._runners:
            priority += self._priority_here()
        if self._captured and fn_id in self._captured:
            return None
        if not priority and not retries and _SCALARS.issuperset(map(type, args)):
            try:
                data = _dumps(args, 2)
            except ValueError:  # too large for marshal
                return None
            while (handle := _submit(self._driver, fn_id, _MARSHAL, data, len(data))) >= _FIRST_STATUS:
                self._raise_status(handle)
            return make(self, handle)
        flat, edges = list(args), []
        for i, arg in enumerate(args):
            kind = type(arg)
            if kind in _SCALARS:
                continue
            if kind not in _FUTURES or arg._engine is not self:
                return None
            flat[i] = ...
            edges.append(arg._handle)
        try:
            data = _dumps(tuple(flat), 2)
        except ValueError:  # as above
            return None
        while (
            handle := _submit_edges(self._driver, fn_id, _FLAT, data, len(data), edges, len(edges), priority, retries)
        ) >= _FIRST_STATUS:
            self._raise_status(handle)
        return make(self, handle)

    def call_span(
        self,
        fn_id: int,
        first: int,
        count: int,
        args: tuple[Any, ...],
        *,
        combine: int = 0,
        chunk: int = 0,
        begun: Promise[None] | None = None,
    ) -> Future[Any]:
        """Submits one task that stands for many items; ranks cut it for their workers.

        Its result is a `codec.Parts`, or what the function `combine` has made of that. See `codec.span_call`.
        The engine ends `begun` when it has sent all items; if the span ends before that, the caller does.
        """
        kind, data = codec.span_call(first, count, args, combine=combine, losses=self.config.loss_retries, chunk=chunk)
        priority = self._priority_here() if self._runners else 0
        edges = [future._handle for future in reversed(self._captured.get(fn_id, ()))]
        parts, _pointers = _c_parts([data])
        promise = 0 if begun is None else begun._handle
        while True:
            handle = lib.mt_driver_submit_with(
                self._driver, fn_id, kind, parts, 1, edges, len(edges), priority, 0, promise
            )
            if handle < _FIRST_STATUS:
                return Future(self, handle)
            self._raise_status(handle)

    def _submit_with(
        self, fn_id: int, args: tuple[Any, ...], kwargs: dict[str, Any], priority: int, retries: int
    ) -> int:
        edges = _Edges(self)
        kind, parts = codec.encode_call(args, kwargs, edges)
        c_parts, _pointers = _c_parts(parts)
        futures = edges.futures
        if self._captured and fn_id in self._captured:
            futures = [*futures, *reversed(self._captured[fn_id])]
        handles = ffi.new("uint64_t[]", [future._handle for future in futures]) if futures else ffi.NULL
        while True:
            handle = lib.mt_driver_submit_with(
                self._driver, fn_id, kind, c_parts, len(parts), handles, len(futures), priority, retries, 0
            )
            if handle < _FIRST_STATUS:
                return int(handle)
            self._raise_status(handle)

    def submit_handle(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> int:
        """Submits one call and gives the bare handle, with one reference that is the caller's. For futures."""
        return self._submit_with(self.function_id(fn), args, {}, 0, 0)

    # -- what is there without a call --

    def share(self, obj: T) -> Shared[T]:
        """Puts an object where tasks can read it, as `mpitask.share`.

        Raises:
            SerializationError: it cannot be pickled.
            EngineClosedError: the engine has ended.
        """
        kind, parts = codec.encode_shared(obj)
        c_parts, pointers = _c_parts(parts)
        while True:
            handle = lib.mt_driver_share(self._driver, kind, c_parts, len(parts))
            if handle < _FIRST_STATUS:
                return Shared(self, int(handle), type(obj).__qualname__, sum(map(len, pointers)))
            self._raise_status(handle)

    def promise(self) -> Promise[Any]:
        """A future without a task, to be ended with its `set_result` or `set_exception`."""
        return Promise(self, self.promise_handle())

    def promise_handle(self) -> int:
        """The bare handle of a new promise, with one reference that is the caller's. For kinds of `Promise`."""
        while True:
            handle = lib.mt_driver_promise(self._driver)
            if handle < _FIRST_STATUS:
                return int(handle)
            self._raise_status(handle)

    def adopt(self, future: concurrent.futures.Future[Any]) -> Future[Any]:
        """A future of this engine that follows one from elsewhere (a thread pool, another engine)."""
        if isinstance(future, Shared):
            own = self._adopted.get(future)
            if own is None:
                own = self._adopted[future] = self.share(future.result())
            return own
        with self._lock:
            known = self._adopted.get(future)
            if known is None:
                promise = self.promise()
                self._adopted[future] = known = promise
            else:
                return known

        def copy(source: concurrent.futures.Future[Any]) -> None:
            try:
                error = source.exception()
                if error is None:
                    promise.set_result(source.result())
                else:
                    promise.set_exception(error)
            except concurrent.futures.CancelledError:
                promise.cancel()
            except EngineClosedError:
                pass
            except Exception as failure:  # noqa: BLE001 - a value that cannot be pickled
                promise.set_exception(
                    SerializationError(f"the value of {source!r} cannot be sent to a task: {failure}")
                )

        future.add_done_callback(copy)
        return promise

    # -- failures --

    def _raise_status(self, handle: int) -> None:
        """Raises for a status in place of a handle; returns when the call should be made again."""
        status = handle - (1 << 64)
        if status == lib.MT_E_INTR:
            return
        self._raise_if_failed()
        if status == lib.MT_E_CLOSED:
            raise EngineClosedError("this engine has ended: tasks can be submitted only while it runs")
        check(status, "submitting a task")

    def _raise_if_failed(self) -> None:
        if not lib.mt_driver_is_ours(self._driver):
            raise NoEngineError(FORKED)
        failure = lib.mt_driver_failure(self._driver)
        if failure == lib.MT_OK:
            return
        if failure == lib.MT_E_WORKERS:
            raise MpitaskError(
                "no worker process could be started: each one died before it was ready, or could not be forked. "
                "Standard error says why; "
                f"try `{sys.executable} -c 'import mpitask.worker.zygote'`"
            )
        if failure == lib.MT_E_SYS:
            number = lib.mt_driver_failure_errno(self._driver)
            raise system_error(number, "the engine has ended: the process that forks its workers cannot be started")
        check(failure, "the engine has ended because of an error")


class _Edges:
    """The futures met while the arguments of one call are pickled."""

    def __init__(self, engine: Submission) -> None:
        self._engine = engine
        self._index: dict[int, int] = {}
        self.futures: list[Future[Any]] = []

    def index_of(self, future: concurrent.futures.Future[Any]) -> int:
        index = self._index.get(id(future))
        if index is None:
            if not isinstance(future, Future) or future._engine is not self._engine:
                own: Future[Any] = self._engine.adopt(future)
            else:
                own = future
            index = self._index[id(future)] = len(self.futures)
            self.futures.append(own)
        return index


class _Captured:
    """The shared objects met while a function is pickled. They become the last dependencies of each of its calls."""

    def __init__(self, engine: Submission) -> None:
        self._engine = engine
        self.found: list[Future[Any]] = []

    def index_of(self, future: concurrent.futures.Future[Any]) -> int:
        if not isinstance(future, Shared):
            raise TypeError(codec.NO_FUTURE)
        own: Future[Any] = future if future._engine is self._engine else self._engine.adopt(future)
        if own not in self.found:
            self.found.append(own)
        return -1 - self.found.index(own)


def _c_parts(parts: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Buffers as an array of mt_part, and what must be kept as long as it is used."""
    pointers = [ffi.from_buffer(part) for part in parts]
    c_parts = ffi.new("mt_part[]", len(parts))
    for i, pointer in enumerate(pointers):
        c_parts[i].data = pointer
        c_parts[i].size = len(pointer)
    return c_parts, pointers


def _note(names: dict[int, str], number: int, name: str) -> None:
    """Any thread, without a lock: each step is one of the interpreter's."""
    names[number] = name
    if len(names) > _MOST_NAMES:
        with contextlib.suppress(
            RuntimeError, StopIteration
        ):  # another thread has changed it: the next one looks again
            names.pop(next(iter(names)), None)


def _nothing() -> None:
    pass


class _Known:
    """A function that workers can have. It goes when the function does."""

    __slots__ = ("_old", "check", "get", "number")

    def __init__(self, engine: weakref.ref[Submission], fn: Callable[..., Any]) -> None:
        self.number = self._old = 0
        self.check: Check | None = None
        self.get: Callable[[], Any]
        key = id(fn)

        def gone(
            _: Any, is_late: Callable[[], bool] = sys.is_finalizing
        ) -> None:  # any thread and time: it takes no lock
            if is_late():  # this module is being taken apart
                return
            self.get = _nothing  # which held this function
            owner = engine()
            if owner is not None:
                if owner._functions.get(key) is self:
                    del owner._functions[key]
                for number in filter(None, (self.number, self._old)):
                    _drop_function(owner, number)

        try:
            self.get = weakref.ref(fn, gone)
        except TypeError:  # it stays
            self.get = lambda: fn

    def replace(self, number: int, check: Check | None) -> int:
        """A new id. Gives the one before the last, 0: none. The last may be on its way into a call."""
        stale, self._old = self._old, self.number
        self.number, self.check = number, check
        return stale


def _drop_function(engine: Submission, number: int) -> None:
    engine._captured.pop(number, None)
    lib.mt_driver_drop_object(engine._driver, number)
