"""Where the calls stand that the kernel looks after: their states, who hears of them, and their ends."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from mpitask.dataflow.record import FINAL_STATES, CallFuture, TaskRecord
from mpitask.errors import DependencyError, EngineClosedError
from mpitask.futures import Future

_log = logging.getLogger("mpitask")

_NO_VALUE = object()

Hook = Callable[[TaskRecord, str, str], None]


class States:
    """Moves records from state to state. Any thread may call any method."""

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self.hooks: list[Hook] = list(hooks)
        """Called with the record, the old and the new state."""
        self.tasks: dict[int, TaskRecord] = {}
        """Calls that have not ended, by their numbers."""
        self.counts: dict[str, int] = {}
        """How many calls are in each state, ended ones included."""
        self._lock = threading.Lock()

    def begin(self, record: TaskRecord) -> None:
        """A call with a number."""
        self.tasks[record["id"]] = record
        self.move(record, "pending")

    def move(self, record: TaskRecord, state: str) -> bool:
        """Into a state that is not the last one; False: it has ended."""
        with record.lock:
            if record["status"] in FINAL_STATES:
                return False
            old = self.count(record, state)
        self._tell_hooks(record, old, state)
        return True

    def end(
        self,
        record: TaskRecord,
        state: str,
        *,
        value: Any = _NO_VALUE,
        source: Future[Any] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Ends a call once and for all: with a value, as another future has ended, with an error, or cancelled."""
        future: CallFuture = record["app_fu"]
        with record.lock:
            if record["status"] in FINAL_STATES:
                return
            record["time_returned"] = datetime.datetime.now()
            if error is not None:
                record["exception"] = error
            if value is not _NO_VALUE:
                future.keep(value, shared=record["memoize"])
            record.target = None
            old = self.count(record, state)
        self._tell_hooks(record, old, state)
        self.tasks.pop(record["id"], None)
        if state not in ("exec_done", "memo_done"):
            future._engine.note_name(record["id"], str(record["func_name"]))
        try:
            if error is not None:
                # Tasks that need it tell of the first failure, not of all between.
                future.set_exception(error.root if isinstance(error, DependencyError) else error)
            elif source is not None:
                future.forward(source)
            elif value is not _NO_VALUE:
                future.publish()
            else:
                future.drop()
        except EngineClosedError:
            pass
        except Exception:  # noqa: BLE001 - an exception that not even a stand-in can be made for
            _log.exception("tasks that need task %d will not get its outcome", record["id"])
            future.drop()

    def count(self, record: TaskRecord, state: str) -> str:
        """Into a state that no hook hears of; the old one. The caller has the record's lock, or nobody else has it."""
        old: str = record["status"]
        with self._lock:
            counts = self.counts
            if counts.get(old):
                counts[old] -= 1
            counts[state] = counts.get(state, 0) + 1
        record["status"] = state
        return old

    def _tell_hooks(self, record: TaskRecord, old: str, state: str) -> None:
        for hook in self.hooks:
            try:
                hook(record, old, state)
            except Exception:  # noqa: BLE001 - a hook must not decide about tasks
                _log.exception("the hook %r raised", hook)
