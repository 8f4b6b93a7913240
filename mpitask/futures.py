"""The future of a task: a light handle on what the C core knows.

A `Future` is a `concurrent.futures.Future`, so that `wait`, `as_completed`, `asyncio.wrap_future` and everything
built on them work, but it holds no lock, no condition and no result until somebody asks. The core is asked for the
state; a result stays bytes until `result()`. Only when code reaches for the standard library's inner parts
(`_condition`, `_waiters`, ...) or adds a callback does the future become a full one (`_materialise`), kept up to date
by the engine's notifier thread.
"""

from __future__ import annotations

import concurrent.futures
import logging
import marshal
import operator
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from mpitask import codec
from mpitask.errors import (
    DependencyError,
    EngineClosedError,
    SerializationError,
    WorkerLost,
    first_line,
    task_text,
    worker_lost,
)
from mpitask.native import check, ffi, lib

if TYPE_CHECKING:
    from mpitask.submission import Submission

T = TypeVar("T")

_log = logging.getLogger("mpitask")

INNER = frozenset({"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"})
_STATE_NAMES = {
    lib.MT_WAITING: "waiting",
    lib.MT_READY: "ready",
    lib.MT_ASSIGNED: "assigned",
    lib.MT_DONE: "done",
    lib.MT_FAILED: "failed",
    lib.MT_DEPENDENCY_FAILED: "dependency_failed",
    lib.MT_CANCELLED: "cancelled",
}
_LOST_WHAT = {
    lib.MT_LOST_WORKER: "worker",
    lib.MT_LOST_RANK: "rank",
    lib.MT_LOST_LINK: "garbage",
    lib.MT_LOST_ZYGOTE: "zygote",
    lib.MT_LOST_MEMORY: "memory",
}
_MARSHAL = codec.MARSHAL
_OK, _ERROR = lib.MT_OUTCOME_OK, lib.MT_OUTCOME_ERROR
_materialise_lock = threading.Lock()
_lift_lock = threading.RLock()  # an item of an item
_value_of, _release_handle = lib.mt_driver_value, lib.mt_driver_release
_buffer, _loads = ffi.buffer, marshal.loads


class _Unset:
    pass


_UNSET = _Unset()


class Future(concurrent.futures.Future[T]):
    """The future result of a task. Any thread may call any method. Made by apps and executors only.

    It can be awaited, and given as an argument (at any depth) to further apps. `future[key]` and `future.name` (public
    names) are futures of the result's item or attribute: a task fetches it when somebody asks.
    """

    __slots__ = ("_engine", "_handle", "_value")

    outputs: Sequence[DataFuture] = ()
    """The files that the call makes."""
    stdout: Any = None
    """Where the call's standard output goes, as it was asked for; None: nowhere in particular."""
    stderr: Any = None
    task_record: Mapping[str, Any] | None = None
    """What is known of a call that the core does not run by itself (memoised, joined, retried by a handler)."""
    _called: str | None = None  # how messages name it, where that is not its function's name

    def __init__(self, engine: Submission, handle: int) -> None:
        self._engine = engine
        self._handle = handle
        self._value: Any = _UNSET

    def __del__(self) -> None:
        _release_handle(self._engine._driver, self._handle)

    # -- results --

    def result(self, timeout: float | None = None) -> T:
        """The task's value; waits for it up to `timeout` seconds.

        Raises:
            TimeoutError: it has not ended by then.
            CancelledError: it was cancelled.
            DependencyError: a task that it needs failed.
            WorkerLost: the process that ran it died.
            EngineClosedError: the engine ended before the task did.
            Exception: whatever the function raised, with the remote traceback.
        """
        if self._value is not _UNSET:
            value: T = self._value
            return value
        raw = _value_of(self._handle)
        if not raw:
            self._wait(timeout)
            raw = _value_of(self._handle)
        if raw and raw.outcome == _OK:
            data = _buffer(raw.data, raw.size)
            value = _loads(data) if raw.codec == _MARSHAL else self._decode(raw.codec, data)
            self._value = value
            return value
        error = self._error(raw)
        try:
            raise error
        finally:
            del error, self  # no cycle of traceback and exception

    def _decode(self, kind: int, data: Any) -> Any:
        try:
            return codec.decode(kind, data)
        except (Exception, SystemExit) as error:  # of a method of the user's
            raise SerializationError(
                f"the result of {self._text()} cannot be unpickled here: {type(error).__name__}: {error}; "
                f"{codec.describe(kind, data)}"
            ) from error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception with which the task ended, None when it gave a value. Waits and times out as `result` does."""
        raw = _value_of(self._handle)
        if not raw:
            self._wait(timeout)
            raw = _value_of(self._handle)
        if raw and raw.outcome == _OK:
            return None
        error = self._error(raw)
        if isinstance(error, concurrent.futures.CancelledError) and not (raw and raw.outcome == _ERROR):
            raise error  # the task was cancelled; one whose function raised it has failed with it
        return error

    def _wait(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = -1 if deadline is None else max(0, int((deadline - time.monotonic()) * 1e9))
            status = self._engine.wait_for(self._handle, left)
            if status >= 0:
                return
            if status == lib.MT_E_TIMEOUT:
                raise TimeoutError(f"{self._text()} has not ended within {timeout} s; it is {self.task_status()}")
            if status != lib.MT_E_INTR:
                self._engine._raise_if_failed()
                raise EngineClosedError(f"the engine ended before {self._text()} did")

    def _error(self, raw: Any) -> BaseException:
        """What `result` raises for a task that ended without a value."""
        error: BaseException
        state = lib.mt_driver_state(self._handle)
        if state == lib.MT_CANCELLED:
            self._engine._raise_if_failed()
            return concurrent.futures.CancelledError(f"{self._text()} was cancelled")
        tid, name = self.tid, self._name()
        names: tuple[str | None, str | None, str | None] = name, None, name
        if state == lib.MT_DEPENDENCY_FAILED:
            tid, blame, name_of = raw.cause, lib.mt_driver_blame(self._handle), self._engine.name_of
            names = name, name_of(raw.via, blame.via_fn), name_of(tid, blame.cause_fn)
        whose = task_text(tid, names[2])
        data = ffi.buffer(raw.data, raw.size) if raw.size else b""
        if raw.outcome == lib.MT_OUTCOME_CANCELLED:
            error = concurrent.futures.CancelledError(f"{whose} was cancelled")
        elif raw.outcome == lib.MT_OUTCOME_LOST:
            error = _decode_lost(tid, bytes(data), names[2])
        else:
            error = codec.decode_exception(data, whose)
        if state == lib.MT_DEPENDENCY_FAILED:
            error = DependencyError(self.tid, raw.via, raw.cause, error, names)
        self._engine._unseen.saw(self.tid, error)
        return error

    # -- state --

    def done(self) -> bool:
        """Whether the task has ended, in whatever way."""
        return bool(lib.mt_driver_state(self._handle) >= lib.MT_FIRST_FINAL)

    def running(self) -> bool:
        """Whether the task has been sent to a worker and has not ended; it can no longer be cancelled."""
        return bool(lib.mt_driver_state(self._handle) == lib.MT_ASSIGNED)

    def cancelled(self) -> bool:
        """Whether the task was cancelled before it ran."""
        return bool(lib.mt_driver_state(self._handle) == lib.MT_CANCELLED)

    def cancel(self) -> bool:
        """Cancels the task unless a worker has it or it has ended; tasks that need it fail. Whether it is cancelled.

        Its own callbacks have been called when this returns.
        """
        if lib.mt_driver_cancel(self._engine._driver, self._handle):
            if "_condition" in self.__dict__:
                self._became_final()
            return True
        return self.cancelled()

    def task_status(self) -> str:
        """waiting, ready, assigned, done, failed, dependency_failed or cancelled."""
        return _STATE_NAMES[lib.mt_driver_state(self._handle)]

    @property
    def tid(self) -> int:
        """The task's number, counted from 0 in order of submission."""
        return int(lib.mt_driver_number(self._handle))

    def _name(self) -> str | None:
        """The name of the app, for messages."""
        return self._called or self._engine.name_of(self.tid, lib.mt_driver_function(self._handle))

    def _text(self) -> str:
        """How messages call the task."""
        return task_text(self.tid, self._name())

    def _waits_for(self) -> str:
        """For `why`, of a task that has not ended: what stands before it, as far as that is known here."""
        if lib.mt_driver_state(self._handle) != lib.MT_READY:
            return ""
        stats = lib.mt_driver_stats_now(self._engine._driver)
        return f": it waits for a worker, of which {stats.slots} are up; {stats.ready} tasks are ready"

    def _ended_with(self) -> BaseException | None:
        """The exception of a task that has ended; a cancelled one has none."""
        try:
            return self.exception(timeout=0)
        except (concurrent.futures.CancelledError, TimeoutError):
            return None

    def __repr__(self) -> str:
        status = self.task_status()
        error = self._ended_with() if self.done() else None
        if isinstance(error, DependencyError):
            status += f", because of {task_text(error.cause, error.names[2])}"
            if not isinstance(error.root, concurrent.futures.CancelledError):
                status += f", {first_line(error.root)}"
        elif error is not None:
            status += f", {first_line(error)}"
        return f"<mpitask.Future of {self._text()}: {status}>"

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio  # heavy, and most programs do without

        return asyncio.wrap_future(self).__await__()

    def __reduce__(self) -> Any:
        return codec.reduce_future(self)

    # -- the standard library's side --

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Calls `fn(self)` once the task has ended: in the engine's notifier thread, or now if it has ended already."""
        with self._condition:
            if self._state not in (CANCELLED_AND_NOTIFIED, FINISHED):
                self._done_callbacks.append(fn)
                return
        self._call(fn)

    def _call(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        try:
            fn(self)
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C, or what the script does by itself
            # The next callback must be called, too.
            _log.exception("a done-callback of %r raised", self)

    def __getattr__(self, name: str) -> Any:
        if name in INNER:
            self._materialise()
            return self.__dict__[name]
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return LiftedFuture(self, getattr, name)

    def __getitem__(self, key: Any) -> LiftedFuture:
        return LiftedFuture(self, operator.getitem, key)

    __iter__ = None  # how many items there are is not known yet

    def why(self) -> str:
        """In words: what the task waits for, or why it failed, with the chain of causes."""
        if not self.done():
            return f"{self._text()} is {self.task_status()}{self._waits_for()}"
        try:
            error = self.exception()
        except concurrent.futures.CancelledError:
            return f"{self._text()} was cancelled"
        if error is None:
            return f"{self._text()} is done"
        lines, link = [f"{self._text()} failed: {type(error).__name__}: {error}"], error.__cause__
        while link is not None and not isinstance(link, codec.RemoteTraceback):
            lines.append(f"because of {type(link).__name__}: {link}")
            link = link.__cause__
        return "\n".join(lines)

    def _materialise(self) -> None:
        with _materialise_lock:
            inner = self.__dict__
            if "_condition" in inner:
                return
            inner.update(_state=PENDING, _result=None, _exception=None, _waiters=[])
            state = lib.mt_driver_state(self._handle)
            if state >= lib.MT_FIRST_FINAL:  # nobody has to be told
                inner["_state"] = CANCELLED_AND_NOTIFIED if state == lib.MT_CANCELLED else FINISHED
                inner["_have_called"] = True
                inner["_done_callbacks"], inner["_condition"] = [], threading.RLock()
                return
            self._done_callbacks: list[Callable[[concurrent.futures.Future[T]], object]] = []
            inner["_condition"] = threading.RLock()  # nobody waits for it: `result` asks the core
            if not self._engine._watch(self._handle, self):
                self._became_final()

    def _became_final(self) -> None:
        """By the notifier thread, or whoever materialises a future that is final: tells waiters and callbacks."""
        cancelled = self.cancelled()
        with self._condition:
            if self._state != PENDING:
                return
            self._state = CANCELLED_AND_NOTIFIED if cancelled or not self.done() else FINISHED
            for waiter in self._waiters:
                if self._state == CANCELLED_AND_NOTIFIED:
                    waiter.add_cancelled(self)
                elif lib.mt_driver_state(self._handle) == lib.MT_DONE:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            callbacks, self._done_callbacks = self._done_callbacks, []
        for fn in callbacks:
            self._call(fn)
        self.__dict__["_have_called"] = True

    @property
    def _owes_callbacks(self) -> bool:
        return "_condition" in self.__dict__ and "_have_called" not in self.__dict__

    def set_result(self, result: T) -> None:  # noqa: ARG002
        """Raises TypeError: a task's value comes from its worker."""
        _refuse()

    def set_exception(self, exception: BaseException | None) -> None:  # noqa: ARG002
        """Raises TypeError: a task's value comes from its worker."""
        _refuse()

    def set_running_or_notify_cancel(self) -> bool:
        """Raises TypeError: the engine decides when a task begins."""
        _refuse()


def _refuse() -> NoReturn:
    raise TypeError("the state of a task's future is set by the engine; only Engine.promise() gives futures to be set")


class LiftedFuture(Future[Any]):
    """Item or attribute of a future's result. The task that fetches it is submitted at the first use of this future."""

    __slots__ = ("_fetch", "_key", "_source", "_task_handle")

    def __init__(self, source: Future[Any], fetch: Callable[[Any, Any], Any], key: Any) -> None:
        self._source, self._fetch, self._key = source, fetch, key
        self._task_handle: int | None = None
        super().__init__(source._engine, 0)

    @property
    def _handle(self) -> int:
        if self._task_handle is None:
            with _lift_lock:
                if self._task_handle is None:
                    self._task_handle = self._engine.submit_handle(self._fetch, (self._source, self._key))
        return self._task_handle

    @_handle.setter
    def _handle(self, handle: int) -> None:
        pass

    def __del__(self) -> None:
        if getattr(self, "_task_handle", None) is not None:
            super().__del__()

    def __repr__(self) -> str:
        if self._task_handle is None:
            return f"<mpitask.Future of {self._name()}, {self._source._text()}: not asked for yet>"
        return super().__repr__()

    def _name(self) -> str:
        what = f"[{self._key!r}]" if self._fetch is operator.getitem else f".{self._key}"
        return f"{what} of {self._source._name() or 'a result'}"


class DataFuture(concurrent.futures.Future[Any]):
    """The future of a file: done when what makes the file is done; its result is the `File`.

    As an argument of an app it is a dependency, and the function gets the `File`. Any thread may call any method.
    """

    def __init__(self, parent: Future[Any], file: Any) -> None:
        super().__init__()
        self.parent = parent
        self.file_obj = file
        parent.add_done_callback(self._parent_done)

    def _parent_done(self, parent: concurrent.futures.Future[Any]) -> None:
        try:
            error = parent.exception()
        except concurrent.futures.CancelledError:
            super().cancel()
            super().set_running_or_notify_cancel()
            return
        if error is None:
            self.set_result(self.file_obj)
        else:
            self.set_exception(error)

    @property
    def tid(self) -> int:
        """Number of the task that makes the file."""
        return self.parent.tid

    @property
    def filepath(self) -> str:
        """Path of the file, wherever it is used."""
        return str(self.file_obj.filepath)

    @property
    def filename(self) -> str:
        """As `filepath`."""
        return self.filepath

    def cancel(self) -> bool:
        """Cancels the task that makes the file, if it can be."""
        return self.parent.cancel()

    def __repr__(self) -> str:
        return f"<mpitask.DataFuture of {self.file_obj!r} by {self.parent._text()}: {self.parent.task_status()}>"

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # heavy, and most programs do without

        return asyncio.wrap_future(self).__await__()

    def __reduce__(self) -> Any:
        return codec.reduce_data_future(self.parent, self.file_obj)


class Promise(Future[T]):
    """A future that is not a task: somebody outside the engine gives it its value. Tasks may depend on it."""

    __slots__ = ()

    def set_result(self, result: T) -> None:
        """Ends it with a value."""
        kind, parts = codec.encode_value(result)
        self._fulfil(lib.MT_OUTCOME_OK, kind, b"".join(bytes(part) for part in parts))

    def set_exception(self, exception: BaseException | None) -> None:
        """Ends it with an exception."""
        if exception is None:
            raise TypeError("set_exception() needs an exception")
        self._fulfil(lib.MT_OUTCOME_ERROR, codec.PICKLE, codec.encode_exception(exception, 0))

    def forward(self, source: Future[T]) -> None:
        """Ends it as `source` has ended; the bytes are copied as they are."""
        raw = _value_of(source._handle)
        if not raw:
            self._fulfil(lib.MT_OUTCOME_CANCELLED, codec.NONE, b"")
            return
        status = lib.mt_driver_fulfil(
            self._engine._driver, self._handle, raw.outcome, raw.codec, raw.data or b"", raw.size
        )
        check(status, "setting a future")

    def _fulfil(self, outcome: int, kind: int, data: bytes) -> None:
        driver = self._engine._driver
        check(lib.mt_driver_fulfil(driver, self._handle, outcome, kind, data, len(data)), "setting a future")


def name_of(future: concurrent.futures.Future[Any]) -> str | None:
    """The name of the app whose call a future stands for; None: it is not known. For messages."""
    if isinstance(future, DataFuture):
        future = future.parent
    return future._name() if isinstance(future, Future) else None


def result_bytes(future: Future[Any]) -> int:
    """How many bytes the result has as it came; 0 while it is not there."""
    raw = _value_of(future._handle)
    return int(raw.size) if raw else 0


def _decode_lost(tid: int, data: bytes, name: str | None) -> WorkerLost:
    lost = ffi.new("mt_lost *")
    size = ffi.sizeof("mt_lost")
    ffi.memmove(lost, data, size)
    host = data[size:].decode(errors="replace")
    return worker_lost(tid, host, lost.pid, lost.wait_status, _LOST_WHAT[lost.what], name)
