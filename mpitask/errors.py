"""Every exception that mpitask raises itself.

MpitaskError
├── ConfigurationError        an option or the way of starting is wrong; says what is right
├── NoEngineError             nothing is loaded: call mpitask.load() first
├── EngineClosedError         the engine has ended
├── TaskError                 a task did not give a result
│   ├── DependencyError       it was not run, because a task that it needs failed
│   └── WorkerLost            the process that ran it died
├── SerializationError        something cannot be pickled or unpickled; says what
├── StagingError              a file cannot be brought where it is needed (mpitask.staging)
└── InternalError             a bug in mpitask

A task that raises an exception of its own fails with that exception, not with one of these. Cancelled tasks raise
`concurrent.futures.CancelledError`, time-outs the built-in `TimeoutError`.
"""

from __future__ import annotations

import signal


class MpitaskError(Exception):
    """The root of all exceptions that mpitask raises itself."""


class ConfigurationError(MpitaskError):
    """An option or the way of starting is wrong."""


class NoEngineError(MpitaskError):
    """An app was called while no engine is loaded."""


class EngineClosedError(MpitaskError):
    """The engine has ended and takes no more tasks."""


class SerializationError(MpitaskError):
    """An argument, a function or a result cannot be pickled, or cannot be unpickled where it is needed."""


class InternalError(MpitaskError):
    """A bug in mpitask itself."""


class TaskError(MpitaskError):
    """A task did not give a result."""


class DependencyError(TaskError):
    """A task was not run, because a task that it needs failed.

    Attributes:
        task: number of the task that was not run.
        via: number of the task whose value was an argument of it.
        cause: number of the task that failed first (equal to `via` when nothing lies between).

    The exception of the first failure is `__cause__`.
    """

    def __init__(self, task: int, via: int, cause: int, root: BaseException) -> None:
        super().__init__(task, via, cause, root)
        self.task = task
        self.via = via
        self.cause = cause
        self.root = root
        self.__cause__ = root

    def __str__(self) -> str:
        through = "" if self.via == self.cause else f", through task {self.via}"
        return (
            f"task {self.task} was not run: it needs the result of task {self.cause}{through}, which failed with "
            f"{type(self.root).__name__}: {self.root}"
        )


class WorkerLost(TaskError):  # noqa: N818 - the field's name for it
    """The process that ran a task died in the middle of it.

    Attributes:
        task: number of the task.
        host: where the process ran.
        pid: its process id; 0 when unknown.
        wait_status: as os.waitpid gives it; -1 when unknown.
        what: "worker", "rank", or "garbage" for a worker that was killed because it sent invalid data.
    """

    def __init__(self, task: int, host: str, pid: int, wait_status: int, what: str) -> None:
        super().__init__(task, host, pid, wait_status, what)
        self.task = task
        self.host = host
        self.pid = pid
        self.wait_status = wait_status
        self.what = what

    @property
    def signal(self) -> int | None:
        """The signal that killed the process, if one did."""
        return self.wait_status & 0x7F or None if self.wait_status >= 0 else None

    @property
    def exit_status(self) -> int | None:
        """The status with which the process exited, if it did."""
        return self.wait_status >> 8 if self.wait_status >= 0 and not self.wait_status & 0x7F else None

    def _how(self) -> str:
        if self.what == "rank":
            return "the rank that ran it was lost"
        if self.what == "garbage":
            return "its worker wrote over the memory that it shares with the engine and was killed"
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return f"its worker was killed by {name}{hint}"
        if self.exit_status is not None:
            return f"its worker exited with status {self.exit_status} in the middle of it"
        return "its worker died"

    def __str__(self) -> str:
        process = f", process {self.pid}" if self.pid else ""
        return f"task {self.task} was lost: {self._how()} (host {self.host}{process})"
