"""What an executor wants of the worker processes that run its tasks: an initializer, and a limited life.

Thread rule: tasks of one process run one at a time, but for inline workers, where an initializer may be called by two
threads at once; they wait for each other.
"""

from __future__ import annotations

import threading
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from mpitask.errors import TaskError
from mpitask.worker import tidy
from mpitask.worker.runner import ProcessWorker


class PreparationError(TaskError, BrokenExecutor):
    """The initializer of an executor raised an exception in a worker; quotes it."""


class Preparation:
    """What is wanted, with a name by which processes know what they have done. Immutable."""

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], most_tasks: int | None):
        self.name = uuid.uuid4().hex
        self.initializer = initializer
        self.initargs = initargs
        self.most_tasks = most_tasks


_lock = threading.RLock()
_outcomes: dict[str, str] = {}  # in this process, of each preparation: how the initializer failed; "": it did not
_counts: dict[str, int] = {}


class Prepared:
    """A function that is called in a prepared process."""

    WRAPS = ("_fn",)

    def __init__(self, preparation: Preparation, fn: Callable[..., Any]) -> None:
        self._preparation = preparation
        self._fn = fn
        self.__qualname__ = getattr(fn, "__qualname__", repr(fn))

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """The value of the function.

        Raises:
            PreparationError: the initializer failed in this process.
        """
        wanted = self._preparation
        if wanted.most_tasks is not None:
            _counts[wanted.name] = _counts.get(wanted.name, 0) + 1
            worker = ProcessWorker.current
            if _counts[wanted.name] >= wanted.most_tasks and worker is not None:
                worker.end_soon()
        if wanted.initializer is not None:
            self._initialize(wanted, wanted.initializer)
        return self._fn(*args, **kwargs)

    @staticmethod
    def _initialize(wanted: Preparation, initializer: Callable[..., object]) -> None:
        with _lock:
            outcome = _outcomes.get(wanted.name)
            if outcome is None:
                try:
                    initializer(*wanted.initargs)
                    outcome = ""
                    tidy.keep()
                except BaseException as error:  # noqa: BLE001 - whatever it is, no task can run here
                    outcome = "".join(traceback.format_exception(error))
                _outcomes[wanted.name] = outcome
        if outcome:
            raise PreparationError(f"the initializer of an executor failed:\n{outcome}")
