"""What the root keeps of a call that it looks after itself, and the future of such a call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpitask.futures import DataFuture, Future, Promise

if TYPE_CHECKING:
    from mpitask.engine import Engine

AUTO_LOGNAME = -1
"""As `stdout=` or `stderr=`: a file in the run directory, named after the task."""

FINAL_STATES = frozenset({"exec_done", "memo_done", "failed", "dep_fail", "cancelled"})


class TaskRecord(dict[str, Any]):
    """All that is known of a call. Hooks, retry handlers and memoizers get it; keys are added, never renamed.

    Keys: id, func_name, func, args, kwargs, depends (futures), executor, status, app_fu, try_id, fail_count, fail_cost,
    fail_history, retries, memoize, ignore_for_cache, hashsum, from_memo, outputs, joins, resource_specification,
    time_invoked, time_returned (datetime).
    """

    __slots__ = ("callee", "lock", "pieces_left", "target")

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.lock = threading.Lock()
        self.pieces_left = 0
        self.callee: Callable[..., Any] = values["func"]  # what a worker calls
        self.target: Future[Any] | None = None  # the attempt that runs


class AppFuture(Promise[Any]):
    """The future of a call that the root looks after. For its users it is a `Future` like any other."""

    def __init__(self, engine: Engine, handle: int) -> None:
        super().__init__(engine, handle)
        self.outputs: Sequence[DataFuture] = []
        self.stdout: Any = None
        self.stderr: Any = None
        self.task_record: TaskRecord | None = None

    def keep(self, value: Any) -> None:
        """Ends it with a value that was made in this process, which `result()` gives as it is."""
        self._value = value
        try:
            self.set_result(value)
        except Exception as error:  # noqa: BLE001 - only tasks that need it have to have it in bytes
            self.set_exception(error)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `Future.exception`."""
        error = super().exception(timeout)
        record = self.task_record
        if error is None or record is None:
            return error
        final: BaseException | None = record.get("exception")
        return error if final is None else final

    def result(self, timeout: float | None = None) -> Any:
        """As `Future.result`."""
        record = self.task_record
        if record is not None and self.done() and record.get("exception") is not None:
            error = record["exception"]
            try:
                raise error
            finally:
                del error, self
        return super().result(timeout)

    def cancel(self) -> bool:
        """As `Future.cancel`; a task that runs for it is cancelled too, if that can be."""
        record = self.task_record
        target = record.target if record is not None else None
        if target is not None and not target.cancel() and not self.done():
            return False
        return super().cancel()

    def task_status(self) -> str:
        """The state in words."""
        record = self.task_record
        return super().task_status() if record is None else str(record["status"])
