"""`parsl.executors.threads`: real threads of the script's process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from mpitask.compat.parsl._options import check_type, keep
from mpitask.compat.parsl.executors.base import ParslExecutor
from mpitask.compat.parsl.executors.errors import InvalidResourceSpecification
from mpitask.compat.parsl.utils import RepresentationMixin
from mpitask.dataflow.threads import Threads
from mpitask.errors import EngineClosedError


class ThreadPoolExecutor(RepresentationMixin, ParslExecutor):
    """Runs tasks in threads of this process, without pickling anything.

    Args:
        label: its name.
        max_threads: how many at a time; None: as `concurrent.futures` thinks best.
        thread_name_prefix: for the names of threads.
        storage_access: staging providers.
        working_dir: the folder into which files are brought.
        remote_monitoring_radio: no effect.
    """

    label: str
    max_threads: int | None
    thread_name_prefix: str | None

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        label: str = "threads",
        max_threads: int | None = 2,
        thread_name_prefix: str | None = None,
        storage_access: Any = None,
        working_dir: Any = None,
        remote_monitoring_radio: Any = None,
    ) -> None:
        check_type("label", label, str)
        check_type("max_threads", max_threads, int, None)
        super().__init__()
        keep(self, locals())
        self._threads: Threads | None = None
        self._unfinished = 0
        self._changed = threading.Condition()

    def start(self) -> None:
        """Threads begin with the first tasks. They do not keep an interrupted script from ending."""
        count = self.max_threads or min(32, (os.cpu_count() or 1) + 4)
        self._threads = Threads(count, self.thread_name_prefix or self.label)

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Runs a call in a thread.

        Raises:
            InvalidResourceSpecification: there is any.
            RuntimeError: after `shutdown`.
        """
        if resource_specification:
            raise InvalidResourceSpecification(resource_specification, "threads take no resource specification")
        if self._threads is None:
            raise EngineClosedError(f"executor {self.label!r} runs no tasks: no kernel has started it")
        future: Future[Any] = Future()
        with self._changed:
            self._unfinished += 1
        try:
            self._threads.submit(lambda: self._run(future, func, args, kwargs))
        except RuntimeError:
            self._one_less()
            raise
        return future

    def _run(
        self, future: Future[Any], func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            if future.set_running_or_notify_cancel():
                try:
                    value = func(*args, **kwargs)
                except BaseException as error:  # noqa: BLE001 - it is the task's end
                    future.set_exception(error)
                else:
                    future.set_result(value)
        finally:
            self._one_less()

    def _one_less(self) -> None:
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()

    def shutdown(self, block: bool = True) -> None:
        """Ends the threads; with `block`, after what they were given."""
        if self._threads is None:
            return
        with self._changed:
            while block and self._unfinished:
                self._changed.wait()
        self._threads.close()

    def monitor_resources(self) -> bool:
        """No: threads share their process."""
        return False
