"""What the root keeps of a call that it looks after itself, and the future of such a call."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures._base import FINISHED
from typing import TYPE_CHECKING, Any

from mpitask import codec
from mpitask.codec import SCALARS
from mpitask.errors import EngineClosedError, task_text
from mpitask.files import File
from mpitask.futures import DataFuture, Future, Promise, name_of

if TYPE_CHECKING:
    from mpitask.engine import Engine

AUTO_LOGNAME = -1
"""As `stdout=` or `stderr=`: a file in the run directory, named after the task."""

FINAL_STATES = frozenset({"exec_done", "memo_done", "failed", "dep_fail", "cancelled"})

_NOTHING = object()
_TOLD = 3  # of the inputs that are not there, in `why`
_promise_lock = threading.RLock()  # a value that is published may hold such futures


joining = threading.local()
"""`record`: that of the join whose function this thread runs."""


class TaskRecord(dict[str, Any]):
    """All that is known of a call. Hooks, retry handlers and memoizers get it; keys are added, never renamed.

    Keys: id, func_name, func, args, kwargs, depends (futures), executor, status, app_fu, try_id, fail_count, fail_cost,
    fail_history, retries, memoize, ignore_for_cache, cache_key, cache_failures, identity (what the function was when it
    was called, or None), hashsum, from_memo, outputs, joins, resource_specification,
    time_invoked, time_returned (datetime); exception, once it has failed.

    Changed under `lock`; once `status` is one of FINAL_STATES, nothing changes any more.
    """

    __slots__ = ("callee", "lock", "pieces_left", "target")

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.lock = threading.Lock()
        self.pieces_left = 0
        self.callee: Callable[..., Any] = values["func"]  # what a worker calls
        self.target: concurrent.futures.Future[Any] | None = None  # the attempt that runs

    def __missing__(self, key: str) -> Any:
        """A call whose result was known has no number until somebody asks for it."""
        if key != "id":
            raise KeyError(key)
        self["id"] = self["app_fu"].tid
        return self["id"]


class AppFuture(Future[Any]):
    """The future of a call of which more is known than what the core knows. For its users a `Future` like any other."""

    task_record: TaskRecord | None


class CallFuture(AppFuture, Promise[Any]):
    """The future of a call that the root looks after.

    It has ended as soon as its record says so. The core, which tells the tasks that need it, knows a moment later.
    """

    task_record: TaskRecord | None = None
    _kept: Any = _NOTHING
    _is_shared = False
    _was_known = False

    def __init__(
        self, engine: Engine, handle: int | None = None, cancel: Callable[[TaskRecord], bool] | None = None
    ) -> None:
        self._promise = handle
        self._cancel_call = cancel
        super().__init__(engine, 0)
        self.outputs: Sequence[DataFuture] = []

    @property
    def _handle(self) -> int:
        """Of the promise that stands for it in the core; made when somebody first needs it."""
        if self._promise is None:
            with _promise_lock:
                if self._promise is None:
                    self._promise = self._engine.promise_handle()
                    if self._was_known:
                        self.publish()
        return self._promise

    @_handle.setter
    def _handle(self, handle: int) -> None:
        pass

    def __del__(self) -> None:
        if getattr(self, "_promise", None) is not None:
            super().__del__()

    def keep(self, value: Any, *, shared: bool) -> None:
        """Notes a value that was made in this process. If it is `shared`, `result()` gives a copy of it."""
        self._is_shared = shared and type(value) not in SCALARS
        self._kept = value

    def remember(self, value: Any) -> None:
        """Instead of a life: the value was known when the call was made. The core does not hear of it unasked."""
        self.keep(value, shared=True)
        self._was_known = True

    def _materialise(self) -> None:
        if not self._was_known:
            super()._materialise()
            return
        with _promise_lock:
            if "_condition" not in self.__dict__:
                self.__dict__.update(_state=FINISHED, _result=None, _exception=None, _waiters=[], _done_callbacks=[])
                self.__dict__["_condition"] = threading.RLock()

    def publish(self) -> None:
        """Gives the kept value to the core."""
        try:
            self.set_result(self._kept)
        except EngineClosedError:
            raise
        except Exception as error:  # noqa: BLE001 - only tasks that need it have to have it in bytes
            self.set_exception(error)

    def refuse_own(self) -> None:
        """For those who would wait for it.

        Raises:
            RuntimeError: it is what the function that runs in this thread shall give.
        """
        record: TaskRecord | None = getattr(joining, "record", None)
        if record is not None and id(record) == id(self.task_record):
            raise RuntimeError(
                f"join_app {record['func_name']} would wait for itself: it uses the future of its own call (task "
                f"{self.tid}), which ends with what this function returns"
            )

    def _wait(self, timeout: float | None) -> None:
        self.refuse_own()
        super()._wait(timeout)

    def __reduce__(self) -> Any:
        self.refuse_own()
        return super().__reduce__()

    def drop(self) -> None:
        """Ends it in the core as one that was cancelled."""
        super().cancel()

    def result(self, timeout: float | None = None) -> Any:
        """As `Future.result`."""
        record = self._ended_record(timeout)
        error = None if record is None else record.get("exception")
        if error is not None:
            try:
                raise error
            finally:
                del error, record, self  # no cycle of traceback and exception
        if record is None or self._kept is _NOTHING:
            return super().result(timeout)
        if self._is_shared:
            with contextlib.suppress(Exception):  # what cannot be copied stays shared
                self._kept = copy.deepcopy(self._kept)
            self._is_shared = False
        return self._kept

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `Future.exception`."""
        record = self._ended_record(timeout)
        error: BaseException | None = None if record is None else record.get("exception")
        if error is not None or (record is not None and self._kept is not _NOTHING):
            return error
        return super().exception(timeout)

    def _ended_record(self, timeout: float | None) -> TaskRecord | None:
        """The record, once the call has ended; None: ask the core."""
        record = self.task_record
        if record is not None and record["status"] not in FINAL_STATES:
            self._wait(timeout)
        if record is None or record["status"] not in FINAL_STATES:
            return None
        error = record.get("exception")
        if error is not None:
            self._engine._unseen.saw(record["id"], error)
        return record

    def done(self) -> bool:
        """As `Future.done`."""
        record = self.task_record
        return (record is not None and record["status"] in FINAL_STATES) or super().done()

    def running(self) -> bool:
        """Whether an attempt at it has been sent to a worker and has not ended."""
        target = self.task_record.target if self.task_record is not None else None
        return target is not None and not self.done() and target.running()

    def cancelled(self) -> bool:
        """As `Future.cancelled`."""
        record = self.task_record
        if record is not None and record["status"] in FINAL_STATES:
            return bool(record["status"] == "cancelled")
        return super().cancelled()

    def cancel(self) -> bool:
        """Cancels the call unless a worker has it or it has ended. A join that is cancelled leaves its tasks alone."""
        if self.task_record is None or self._cancel_call is None:
            return super().cancel()
        return self._cancel_call(self.task_record)

    def __repr__(self) -> str:
        if self._promise is not None:
            return super().__repr__()
        name = self._name()
        return f"<mpitask.Future of a remembered call{f' of {name}' if name else ''}: memo_done>"

    def _name(self) -> str | None:
        return super()._name() if self.task_record is None else str(self.task_record["func_name"])

    def _waits_for(self) -> str:
        record = self.task_record
        open_ = [] if record is None else [future for future in record["depends"] if not future.done()]
        told = [
            f"{task_text(future.tid, name_of(future))}, which is {_state_of(future)}"
            if isinstance(future, Future | DataFuture)
            else "a future from elsewhere"
            for future in open_[:_TOLD]
        ]
        if len(open_) > _TOLD:
            told.append(f"{len(open_) - _TOLD} more")
        return f": it needs {'; '.join(told)}" if told else ""

    def task_status(self) -> str:
        """The state in words."""
        record = self.task_record
        return super().task_status() if record is None else str(record["status"])


def _state_of(future: Future[Any] | DataFuture) -> str:
    return future.parent.task_status() if isinstance(future, DataFuture) else future.task_status()


def error_of(future: concurrent.futures.Future[Any]) -> BaseException | None:
    """The exception of a future that has ended; a cancelled one gives its CancelledError."""
    try:
        return future.exception()
    except concurrent.futures.CancelledError as error:
        return error


class FilesFuture(DataFuture):
    """The future of a pattern among a call's outputs: its result is the list of Files that match when it has ended.

    A name that exists literally is no pattern: then the result is the File.
    """

    def __init__(self, parent: Future[Any], file: File, in_background: Callable[[Callable[[], None]], Any]) -> None:
        self._in_background = in_background
        super().__init__(parent, file)

    def _parent_done(self, parent: concurrent.futures.Future[Any]) -> None:
        if parent.cancelled() or parent.exception() is not None:
            super()._parent_done(parent)
            return
        try:
            self._in_background(self._look)
        except RuntimeError:  # the engine is ending
            self._look()

    def _look(self) -> None:
        try:
            self.set_result(_matches(None, self.file_obj))
        except OSError as error:
            self.set_exception(error)

    def __reduce__(self) -> Any:
        return _matches, codec.reduce_data_future(self.parent, self.file_obj)[1]


def _matches(_: Any, file: File) -> Any:
    """What an output has become: the files that match, or the one of that very name."""
    return file if os.path.exists(file) else file.expand()  # noqa: PTH110
