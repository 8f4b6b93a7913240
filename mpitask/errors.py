"""Every exception that mpitask raises itself.

MpitaskError
├── ConfigurationError        an option or the way of starting is wrong; says what is right (a ValueError)
├── NoEngineError             nothing is loaded: call mpitask.load() first (a RuntimeError)
├── EngineClosedError         the engine has ended (a RuntimeError)
├── TaskError                 a task did not give a result
│   ├── TaskExit              its function raised SystemExit, or another exception that would end a program
│   ├── DependencyError       it was not run, because a task that it needs failed
│   ├── JoinError             a join_app returned futures, and one of those failed
│   ├── WorkerLost            the process that ran it died (a BrokenExecutor)
│   └── AppError              an app broke a rule of its kind, or a limit
│       ├── AppTimeout        it ran longer than its walltime
│       ├── BashExitFailure   its command ended with a status other than 0
│       ├── AppBadFormatting  a bash_app's function raised IndexError: its format string does not fit
│       ├── BashAppNoReturn   a bash_app's function raised AttributeError instead of returning a command
│       ├── MissingOutputs    its command made not all of its outputs
│       └── BadStdStreamFile  a file for its standard output or error cannot be opened
├── SerializationError        something cannot be pickled or unpickled; says what (a PicklingError)
├── BadCheckpoint             a checkpoint is missing or damaged (mpitask.memo)
├── StagingError              a file cannot be brought where it is needed (mpitask.staging)
└── InternalError             a bug in mpitask

A task that raises an exception of its own fails with that exception, not with one of these. Cancelled tasks raise
`concurrent.futures.CancelledError`, time-outs the built-in `TimeoutError`.
"""

from __future__ import annotations

import difflib
import pickle
import signal
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import BrokenExecutor


def shown(value: object) -> str:
    """A value of the user's in a message: its `repr`, if that can be had."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever a value's own methods do
        return f"<{type(value).__qualname__}>"


def task_text(number: int, name: str | None) -> str:
    """How messages call a task: by its number, and the name of its app where that is known."""
    return f"task {number} ({name})" if name else f"task {number}"


def first_line(error: BaseException, limit: int = 120) -> str:
    """An exception in short: its type and the first line of its text."""
    text = shown_text(error).strip()
    line = text.splitlines()[0] if text else ""
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def shown_text(error: BaseException) -> str:
    """The text of an exception, if that can be had."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever an exception's own methods do
        return f"<{type(error).__qualname__}>"


class MpitaskError(Exception):
    """The root of all exceptions that mpitask raises itself."""


class ConfigurationError(MpitaskError, ValueError):
    """An option or the way of starting is wrong."""


class NoEngineError(MpitaskError, RuntimeError):
    """An app was called, or a task waited for, where this process has no engine: none is loaded, or it was forked."""


FORKED = (
    "this process was forked from one that has an engine, and has none itself: call apps and wait for their results in "
    "the first process, or start an engine here with mpitask.load()"
)
"""Of a NoEngineError."""


class EngineClosedError(MpitaskError, RuntimeError):
    """The engine has ended and takes no more tasks."""


class SerializationError(MpitaskError, pickle.PicklingError):
    """An argument, a function or a result cannot be pickled, or cannot be unpickled where it is needed."""


class InternalError(MpitaskError):
    """A bug in mpitask itself."""


class TaskError(MpitaskError):
    """A task did not give a result."""


class TaskExit(TaskError):  # noqa: N818 - what has happened, as in SystemExit
    """The function of a task called `sys.exit()`, or raised another exception that is no `Exception`.

    In the script such an exception would end the program, or be taken for Ctrl-C or a generator's end; it is only the
    end of that task.

    Attributes:
        kind: name of the exception's type.
        code: of a SystemExit, what was given to `sys.exit()`; else None.
        text: the exception in words.
    """

    def __init__(self, kind: str, code: object, text: str) -> None:
        super().__init__(kind, code, text)
        self.kind = kind
        self.code = code
        self.text = text

    def __str__(self) -> str:
        if self.kind == "SystemExit":
            return f"the function called sys.exit({'' if self.code is None else repr(self.code)})"
        return f"the function raised {self.kind}{': ' if self.text else ''}{self.text}"


def as_failure(error: BaseException) -> Exception:
    """What a task ends with whose function raised `error`: no future raises what could end the script."""
    if isinstance(error, Exception):
        return error
    code = error.code if isinstance(error, SystemExit) else None
    if not isinstance(code, int | str | None):
        code = repr(code)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a method of the user's
        text = ""
    failure = TaskExit(type(error).__qualname__, code, text)
    failure.__cause__ = error.__cause__
    return failure


class DependencyError(TaskError):
    """A task was not run, because a task that it needs failed.

    Attributes:
        task: number of the task that was not run.
        via: number of the task whose value was an argument of it.
        cause: number of the task that failed first (equal to `via` when nothing lies between).
        names: of the apps of these three, None where one is not known.

    The exception of the first failure is `__cause__`.
    """

    def __init__(
        self,
        task: int,
        via: int,
        cause: int,
        root: BaseException,
        names: tuple[str | None, str | None, str | None] = (None, None, None),
    ) -> None:
        super().__init__(task, via, cause, root, names)
        self.names = names
        self.task = task
        self.via = via
        self.cause = cause
        self.root = root
        self.__cause__ = root

    @property
    def dependent_exceptions_tids(self) -> list[tuple[BaseException, str]]:
        """The exception behind it and the name of its task."""
        return [(self.root, f"task {self.cause}")]

    @property
    def task_id(self) -> int:
        """As `task`."""
        return self.task

    def __str__(self) -> str:
        task, via, cause = self.names
        through = "" if self.via == self.cause else f", which it needs through {task_text(self.via, via)},"
        why = f"{task_text(self.cause, cause)}{through} failed: {type(self.root).__name__}: {self.root}"
        return f"{task_text(self.task, task)} was not run because {why}"


class JoinError(TaskError):
    """A join_app returned futures, and some of them failed.

    Attributes:
        task: number of the joining task.
        failures: (exception, task) of each that failed; the first is `__cause__`.
        names: of the apps of the joining task and of the first that failed, None where one is not known.
    """

    def __init__(
        self,
        task: int,
        failures: list[tuple[BaseException, str]],
        names: tuple[str | None, str | None] = (None, None),
    ) -> None:
        super().__init__(task, failures, names)
        self.names = names
        self.task = task
        self.failures = failures
        self.__cause__ = failures[0][0]

    @property
    def dependent_exceptions_tids(self) -> list[tuple[BaseException, str]]:
        """As `failures`."""
        return self.failures

    @property
    def task_id(self) -> int:
        """As `task`."""
        return self.task

    def __str__(self) -> str:
        error, task = self.failures[0]
        others = f" (and {len(self.failures) - 1} others)" if len(self.failures) > 1 else ""
        me, inner = self.names
        inner = f" ({inner})" if inner else ""
        how = f"failed with {type(error).__name__}: {error}"
        return f"{task_text(self.task, me)} joins {task}{inner}{others}, which {how}"


class AppError(TaskError):
    """An app broke a rule of its kind, or a limit."""


class AppTimeout(AppError):  # noqa: N818 - the field's name for it
    """An app ran longer than its walltime."""


class BashExitFailure(AppError):  # noqa: N818 - the field's name for it
    """The command of a bash_app ended with a status other than 0.

    Attributes:
        app_name: name of the function.
        exitcode: what the command returned; negative: the signal that killed it.
        stderr_tail: the last lines that it wrote to its standard error.
        command: the command; the middle of a long one is left out.
    """

    def __init__(self, app_name: str, exitcode: int, stderr_tail: str = "", command: str = "") -> None:
        super().__init__(app_name, exitcode, stderr_tail, command)
        self.command = command
        self.app_name = app_name
        self.exitcode = exitcode
        self.stderr_tail = stderr_tail

    def __str__(self) -> str:
        how = f"with unix exit code {self.exitcode}"
        if self.exitcode < 0:
            try:
                how = f"by {signal.Signals(-self.exitcode).name} (exit code {self.exitcode})"
            except ValueError:
                how = f"by signal {-self.exitcode} (exit code {self.exitcode})"
        tail = f"; the end of its standard error:\n{self.stderr_tail}" if self.stderr_tail else ""
        command = f": {self.command}" if self.command else ""
        return f"bash_app {self.app_name} failed {how}{command}{tail}"


class AppBadFormatting(AppError):  # noqa: N818 - the field's name for it
    """The function of a bash_app raised IndexError, as a format string does that does not fit its arguments."""


class BashAppNoReturn(AppError):  # noqa: N818 - the field's name for it
    """The function of a bash_app raised AttributeError instead of returning a command."""


class MissingOutputs(AppError):  # noqa: N818 - the field's name for it
    """A bash_app has ended, and files that it should have made are not there.

    Attributes:
        reason: in words.
        outputs: the files that are missing.
    """

    def __init__(self, reason: str, outputs: list[object]) -> None:
        super().__init__(reason, outputs)
        self.reason = reason
        self.outputs = outputs

    def __str__(self) -> str:
        return f"Missing outputs: {self.reason}: {', '.join(map(str, self.outputs))}"


class BadStdStreamFile(AppError):  # noqa: N818 - the field's name for it
    """A file for the standard output or error of an app cannot be opened."""


_LOST = {
    "rank": "the rank that ran it was lost",
    "memory": "the kernel killed its worker because the node, or the job's share of it, ran out of memory",
    "garbage": "its worker wrote over the memory that it shares with the engine and was killed",
}


class WorkerLost(TaskError, BrokenExecutor):  # noqa: N818 - the field's name for it
    """The process that ran a task died in the middle of it.

    Attributes:
        task: number of the task.
        host: where the process ran.
        pid: its process id; 0 when unknown.
        wait_status: as os.waitpid gives it; -1 when unknown.
        what: "worker"; "memory": the kernel killed the worker for lack of memory; "zygote": the worker ended with the
            process that forks them; "rank"; "garbage": the worker was killed because it sent invalid data.
        name: of its app, None where it is not known.
    """

    def __init__(  # noqa: PLR0917 - pickled by position
        self, task: int, host: str, pid: int, wait_status: int, what: str, name: str | None = None
    ) -> None:
        super().__init__(task, host, pid, wait_status, what, name)
        self.name = name
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
        if self.what in _LOST:
            return _LOST[self.what]
        if self.what == "zygote":
            how = f" by signal {self.signal}" if self.signal is not None else ""
            return f"the process that forks this rank's workers was killed{how}, and its worker with it"
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            hint = " (was the job cancelled, or its time over?)" if name == "SIGTERM" else ""
            return f"its worker was killed by {name}{hint}"
        if self.exit_status is not None:
            return f"its worker exited with status {self.exit_status} in the middle of it"
        return "its worker died"

    def __str__(self) -> str:
        process = f", process {self.pid}" if self.pid else ""
        return f"{task_text(self.task, self.name)} was lost: {self._how()} (host {self.host}{process})"


_with_broken_pool: type[WorkerLost] | None = None


def worker_lost(  # noqa: PLR0917 - pickled by position
    task: int, host: str, pid: int, wait_status: int, what: str, name: str | None = None
) -> WorkerLost:
    """A `WorkerLost` that is also a `BrokenProcessPool`, if the program has loaded that class and so may expect it.

    To load it for this alone would cost every process as much as all of mpitask.
    """
    global _with_broken_pool
    pools = sys.modules.get("concurrent.futures.process")
    if pools is None:
        return WorkerLost(task, host, pid, wait_status, what, name)
    if _with_broken_pool is None:
        bases = (WorkerLost, pools.BrokenProcessPool)
        _with_broken_pool = type(
            "WorkerLost",
            bases,
            {
                "__doc__": WorkerLost.__doc__,
                "__module__": __name__,
                "__reduce__": lambda self: (worker_lost, self.args),
            },
        )
    return _with_broken_pool(task, host, pid, wait_status, what, name)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that somebody may have meant."""
    return next(iter(difflib.get_close_matches(name, list(known), 1)), None)


def check_names(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Looks at the names of options.

    Raises:
        ConfigurationError: one does not exist; the message names the nearest one, or all.
    """
    for name in given:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(known)}"
            raise ConfigurationError(f"there is no {what} {name!r}; {hint}")
