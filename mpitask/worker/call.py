"""What a worker does around a function whose app has streams, a walltime, or a command line.

Thread rule: one call at a time in a process, but for inline workers, whose calls may overlap in threads; then streams
cannot be redirected for one of them alone, and a walltime interrupts Python code only.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import select
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from mpitask.environment import without_launcher
from mpitask.errors import (
    AppBadFormatting,
    AppTimeout,
    BadStdStreamFile,
    BashAppNoReturn,
    BashExitFailure,
    MissingOutputs,
)
from mpitask.files import File
from mpitask.native import check, ffi, lib
from mpitask.private import PrivatePath, make_directories, opener
from mpitask.worker import tidy
from mpitask.worker.runner import ProcessWorker

STREAMS = ("stdout", "stderr")
SHELL = b"/bin/bash"
_KILL_GRACE_S = 1.0
"""After its walltime a function that cannot be interrupted, or a command that ignores SIGTERM, gets this long."""
_LONGEST_S = 1e9
_LONGEST_POLL_S = 1e6
_TAIL_BYTES = 4000
_TAIL_LINES = 10
_SHOWN_CHARS = 200
_LONGEST_ARGUMENT = 1 << 17  # MAX_ARG_STRLEN of Linux, its end included
_HEADER_END = "--> end executable <--\n"
_libc = ctypes.CDLL(None)


def open_stream(spec: Any, name: str, default_mode: str = "a+") -> IO[Any]:
    """Opens what was given as stdout= or stderr=: a path, or (path, mode). Makes its directories.

    Raises:
        BadStdStreamFile: it cannot be opened, or not for writing.
    """
    path, mode = spec if isinstance(spec, tuple) and len(spec) == 2 else (spec, default_mode)
    try:
        target = Path(os.fspath(path))
        if isinstance(path, PrivatePath):
            make_directories(target.parent)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
        file: IO[Any] = open(target, mode, opener=opener if isinstance(path, PrivatePath) else None)  # noqa: SIM115
    except Exception as error:
        raise BadStdStreamFile(f"{name}={spec!r} cannot be opened: {type(error).__name__}: {error}") from error
    if not file.writable():
        file.close()
        raise BadStdStreamFile(f"{name}={spec!r} is opened for reading only: give another mode")
    return file


def _flush(name: str) -> None:
    stream = getattr(sys, name)
    if stream is not None:
        stream.flush()
    _libc.fflush(None)  # what extension modules have printed


@contextlib.contextmanager
def redirected(specs: dict[str, Any]) -> Iterator[None]:
    """Standard output and error of this process, child processes included, go to files for a while."""
    with contextlib.ExitStack() as stack:
        for number, name in enumerate(STREAMS, start=1):
            if specs.get(name) is None:
                continue
            file = stack.enter_context(open_stream(specs[name], name))
            _flush(name)
            kept = os.dup(number)
            stack.callback(os.close, kept)
            os.dup2(file.fileno(), number)
            stack.callback(os.dup2, kept, number)
            stack.callback(_flush, name)
        yield


def call_within(walltime_s: float | None, name: str, fn: Callable[[], Any]) -> Any:
    """Calls `fn()`; after `walltime_s` AppTimeout is raised in it. Code that is deaf to that ends with its process."""
    if walltime_s is None:
        return fn()
    text = f"App {name} exceeded walltime: {walltime_s} seconds"
    walltime_s = float(walltime_s)
    if threading.current_thread() is not threading.main_thread():
        return _call_within_thread(walltime_s, text, fn)
    over = False
    began_s = time.monotonic()
    before = signal.getsignal(signal.SIGALRM)

    def expired(*of_signal: Any) -> None:
        if time.monotonic() - began_s < walltime_s and callable(before):
            before(*of_signal)  # of a task that waits in this thread while this one runs
        elif not over:
            raise AppTimeout(text)

    timer = ffi.new("uint64_t *")
    deadline_s = min(walltime_s + _KILL_GRACE_S, _LONGEST_S)
    check(lib.mt_deadline_set(int(deadline_s * 1e9), timer), "setting a walltime")
    outer_s = signal.getitimer(signal.ITIMER_REAL)[0]
    tidy.set_handler(signal.SIGALRM, expired)
    try:
        # It rings once: an exception that comes on the way out leaves nothing behind that could ring in the next task.
        limit_s = min(max(walltime_s, 1e-6), _LONGEST_S)
        tidy.set_timer(signal.ITIMER_REAL, limit_s if outer_s == 0 else min(limit_s, outer_s))
        try:
            value = fn()
            settle = ProcessWorker.current.settle if ProcessWorker.current is not None else None
            if settle is not None:
                settle()
            return value
        finally:
            over = True
    finally:
        lib.mt_deadline_cancel(timer[0])
        tidy.set_timer(signal.ITIMER_REAL, 0)
        tidy.set_handler(signal.SIGALRM, before)
        left_s = outer_s - (time.monotonic() - began_s)
        if left_s > 0:
            tidy.set_timer(signal.ITIMER_REAL, left_s)


def _call_within_thread(walltime_s: float, text: str, fn: Callable[[], Any]) -> Any:
    thread = ctypes.c_ulong(threading.get_ident())
    lock = threading.Lock()
    over = False

    def interrupt() -> None:
        with lock:
            if not over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(AppTimeout))

    timer = threading.Timer(min(walltime_s, threading.TIMEOUT_MAX), interrupt)
    timer.daemon = True
    timer.start()
    try:
        try:
            return fn()
        finally:
            with lock:
                over = True
    except AppTimeout:
        raise AppTimeout(text) from None
    finally:
        timer.cancel()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # ordered, and not delivered yet


class Shortened:
    """A function that is called without the keyword arguments that are for its app alone."""

    WRAPS = ("fn",)

    def __init__(self, fn: Callable[..., Any], hidden: frozenset[str]) -> None:
        self.fn = fn
        self.hidden = hidden

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it."""
        return self.fn(*args, **{name: value for name, value in kwargs.items() if name not in self.hidden})


class PythonCall:
    """A function with the redirections and the walltime of its call."""

    WRAPS = ("fn",)

    def __init__(self, fn: Callable[..., Any], name: str, hidden: frozenset[str] = frozenset()) -> None:
        self.fn = Shortened(fn, hidden) if hidden else fn
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it."""
        with redirected(kwargs):
            return call_within(kwargs.get("walltime"), self.name, functools.partial(self.fn, *args, **kwargs))


class BashCall:
    """A function that returns a command line, which is then run by bash."""

    WRAPS = ("fn",)

    def __init__(self, fn: Callable[..., Any], name: str, hidden: frozenset[str] = frozenset()) -> None:
        self.fn = Shortened(fn, hidden) if hidden else fn
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        """Calls it and runs its command. Gives 0, or raises what belongs to another end."""
        command = self._command(args, kwargs)
        with contextlib.ExitStack() as stack:
            files = {
                name: stack.enter_context(open_stream(kwargs[name], name))
                for name in STREAMS
                if kwargs.get(name) is not None
            }
            if "stderr" in files:
                errors = files["stderr"]
                _write(errors.fileno(), f"--> executable follows <--\n{command}\n{_HEADER_END}")
            else:
                errors = stack.enter_context(tempfile.TemporaryFile())
                stack.callback(_pass_on, errors.fileno())
            out = files["stdout"].fileno() if "stdout" in files else -1
            _flush("stdout")
            status = run_command(command, out, errors.fileno(), kwargs.get("walltime"), self.name)
            if status != 0:
                raise BashExitFailure(self.name, status, _tail(errors.fileno()), _shown(command))
        missing = [file for file in kwargs.get("outputs") or () if not _exists(file)]
        if missing:
            raise MissingOutputs(f"Missing outputs from app {self.name}", missing)
        return 0

    def _command(self, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
        try:
            command = self.fn(*args, **kwargs)
        except AttributeError as error:
            raise BashAppNoReturn(f"bash_app {self.name} returned no command: AttributeError: {error}") from error
        except IndexError as error:
            raise AppBadFormatting(f"bash_app {self.name} could not format its command: IndexError: {error}") from error
        if not isinstance(command, str):
            raise ValueError(
                f"Expected a str for bash_app commandline, got {type(command).__name__}: {self.name} must return "
                "the command to run"
            )
        if "\0" in command:
            raise ValueError(f"the command of bash_app {self.name} holds a NUL character")
        return command


def run_command(command: str, stdout: int, stderr: int, walltime_s: float | None, name: str) -> int:
    """Runs a command line in bash, in a process group of its own; file descriptors may be -1: as ours.

    Returns:
        The exit status; negative: the signal that killed it.

    Raises:
        AppTimeout: it has not ended within its walltime; its process group has been killed.
    """
    with _as_argument(command) as text:
        pid = _spawn_shell(text, stdout, stderr)
        try:
            status = _wait(pid, None if walltime_s is None else float(walltime_s))
        except BaseException:
            _kill_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    if status is None:
        raise AppTimeout(f"App {name} exceeded walltime: {walltime_s} seconds")
    return os.waitstatus_to_exitcode(status)


def _wait(pid: int, walltime_s: float | None) -> int | None:
    """How a child has ended; None: it did not within its walltime, and has been killed with its group."""
    if walltime_s is None:
        return os.waitpid(pid, 0)[1]
    handle = os.pidfd_open(pid)
    try:
        if _ends_within(handle, walltime_s):
            return os.waitpid(pid, 0)[1]
        _kill_group(pid, signal.SIGTERM)
        _ends_within(handle, _KILL_GRACE_S)
        _kill_group(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        os.close(handle)
    return None


@contextlib.contextmanager
def _as_argument(command: str) -> Iterator[bytes]:
    """A command as it can be given to bash: a long one is read from memory of this process, which nobody inherits."""
    data = os.fsencode(command)
    if len(data) < _LONGEST_ARGUMENT:
        yield data
        return
    with (
        tempfile.TemporaryFile()
        if not hasattr(os, "memfd_create")
        else open(  # noqa: PTH123
            os.memfd_create("mpitask-command"), "w+b"
        ) as file
    ):
        file.write(data)
        file.flush()
        yield b". /proc/%d/fd/%d" % (os.getpid(), file.fileno())


def _shown(command: str) -> str:
    text = command.strip()
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS // 2]} ... {text[-_SHOWN_CHARS // 2 :]}"


def _spawn_shell(command: bytes, stdout: int, stderr: int) -> int:
    words = [ffi.new("char[]", word) for word in (SHELL, b"-c", command)]
    scrubbed = without_launcher(os.environ)
    variables = [ffi.new("char[]", os.fsencode(f"{key}={value}")) for key, value in scrubbed.items()]
    pid = ffi.new("int32_t *")
    status = lib.mt_spawn(
        ffi.new("char *[]", [*words, ffi.NULL]),
        ffi.new("char *[]", [*variables, ffi.NULL]),
        ffi.new("int32_t[]", [-1, stdout, stderr]),
        pid,
    )
    if status != lib.MT_OK:
        raise OSError(ffi.errno, f"bash cannot be started: {os.strerror(ffi.errno)}")
    return int(pid[0])


def _ends_within(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(min(left, _LONGEST_POLL_S) * 1000):
            return True
    return False


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _exists(output: Any) -> bool:
    """Whether an output is there; of a pattern, at least one file."""
    if os.path.exists(output):  # noqa: PTH110 - any os.PathLike
        return True
    return isinstance(output, File) and output.is_glob and bool(output.expand())


def _write(fd: int, text: str) -> None:
    data = os.fsencode(text)
    while data:
        data = data[os.write(fd, data) :]


def _pass_on(fd: int) -> None:
    """What is in a file also goes to our own standard error."""
    at = 0
    while data := os.pread(fd, 1 << 20, at):
        at += len(data)
        while data:
            data = data[os.write(2, data) :]


def _tail(fd: int) -> str:
    """The last lines that a command has written to a file; empty for a device, or a pipe."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return ""
    with open(f"/proc/self/fd/{fd}", "rb") as file:  # noqa: PTH123 - ours may be for writing only
        file.seek(max(0, status.st_size - _TAIL_BYTES))
        data = file.read(_TAIL_BYTES)
    text = data.decode(errors="replace").rpartition(_HEADER_END)[2]
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
