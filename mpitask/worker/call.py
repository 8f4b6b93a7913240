"""What a worker does around a function whose app has streams, a walltime, or a command line.

Thread rule: one call at a time in a process, but for inline workers, whose calls may overlap in threads; then streams
cannot be redirected for one of them alone, and a walltime interrupts Python code only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
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
from mpitask.native import check, ffi, lib

STREAMS = ("stdout", "stderr")
SHELL = b"/bin/bash"
_KILL_GRACE_S = 1.0
"""After its walltime a function that cannot be interrupted, or a command that ignores SIGTERM, gets this long."""
_TAIL_BYTES = 4000
_TAIL_LINES = 10


def open_stream(spec: Any, name: str, default_mode: str = "a+") -> IO[str]:
    """Opens what was given as stdout= or stderr=: a path, or (path, mode). Makes its directories.

    Raises:
        BadStdStreamFile: it cannot be opened.
    """
    path, mode = spec if isinstance(spec, tuple) and len(spec) == 2 else (spec, default_mode)
    try:
        target = Path(os.fspath(path))
        if target.parent != Path():
            target.parent.mkdir(parents=True, exist_ok=True)
        return target.open(mode)
    except Exception as error:
        raise BadStdStreamFile(f"{name}={spec!r} cannot be opened: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def redirected(specs: dict[str, Any]) -> Iterator[None]:
    """Standard output and error of this process, child processes included, go to files for a while."""
    with contextlib.ExitStack() as stack:
        for number, name in enumerate(STREAMS, start=1):
            if specs.get(name) is None:
                continue
            file = stack.enter_context(open_stream(specs[name], name))
            getattr(sys, name).flush()
            kept = os.dup(number)
            stack.callback(os.close, kept)
            os.dup2(file.fileno(), number)
            stack.callback(os.dup2, kept, number)
            stack.callback(getattr(sys, name).flush)
        yield


@contextlib.contextmanager
def limited(walltime_s: float | None, name: str) -> Iterator[None]:
    """Raises AppTimeout in the block after `walltime_s`; code that does not let Python run ends with its process."""
    if walltime_s is None:
        yield
        return
    text = f"App {name} exceeded walltime: {walltime_s} seconds"
    if threading.current_thread() is not threading.main_thread():
        with _limited_thread(walltime_s, text):
            yield
        return

    def expired(*_: object) -> None:
        raise AppTimeout(text)

    timer = ffi.new("uint64_t *")
    check(lib.mt_deadline_set(int((walltime_s + _KILL_GRACE_S) * 1e9), timer), "setting a walltime")
    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, max(walltime_s, 1e-6))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        lib.mt_deadline_cancel(timer[0])


@contextlib.contextmanager
def _limited_thread(walltime_s: float, text: str) -> Iterator[None]:
    thread = ctypes.c_ulong(threading.get_ident())
    expired = threading.Event()

    def interrupt() -> None:
        expired.set()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(AppTimeout))

    timer = threading.Timer(walltime_s, interrupt)
    timer.start()
    try:
        yield
    except AppTimeout:
        raise AppTimeout(text) from None
    finally:
        timer.cancel()


class PythonCall:
    """A function with the redirections and the walltime of its call."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn = fn
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it."""
        with redirected(kwargs), limited(kwargs.get("walltime"), self.name):
            return self.fn(*args, **kwargs)


class BashCall:
    """A function that returns a command line, which is then run by bash."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn = fn
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        """Calls it and runs its command. Gives 0, or raises what belongs to another end."""
        command = self._command(args, kwargs)
        with contextlib.ExitStack() as stack:
            files: dict[str, IO[str]] = {}
            for name in STREAMS:
                if kwargs.get(name) is not None:
                    files[name] = stack.enter_context(open_stream(kwargs[name], name))
            if "stderr" in files:
                print(
                    f"--> executable follows <--\n{command}\n--> end executable <--", file=files["stderr"], flush=True
                )
                errors: IO[Any] = files["stderr"]
            else:
                errors = stack.enter_context(tempfile.TemporaryFile())
            out = files["stdout"].fileno() if "stdout" in files else -1
            sys.stdout.flush()
            status = run_command(command, out, errors.fileno(), kwargs.get("walltime"), self.name)
            tail = _tail(errors, passes_on="stderr" not in files)
        if status != 0:
            raise BashExitFailure(self.name, status, tail)
        missing = [file for file in kwargs.get("outputs") or () if not os.path.exists(file)]  # noqa: PTH110
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
        return command


def run_command(command: str, stdout: int, stderr: int, walltime_s: float | None, name: str) -> int:
    """Runs a command line in bash, in a process group of its own; file descriptors may be -1: as ours.

    Returns:
        The exit status; negative: the signal that killed it.

    Raises:
        AppTimeout: it has not ended within its walltime; its process group has been killed.
    """
    pid = _spawn_shell(command, stdout, stderr)
    if walltime_s is None:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    handle = os.pidfd_open(pid)
    try:
        if _ends_within(handle, walltime_s):
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _kill_group(pid, signal.SIGTERM)
        _ends_within(handle, _KILL_GRACE_S)
        _kill_group(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        os.close(handle)
    raise AppTimeout(f"App {name} exceeded walltime: {walltime_s} seconds")


def _spawn_shell(command: str, stdout: int, stderr: int) -> int:
    words = [ffi.new("char[]", word) for word in (SHELL, b"-c", os.fsencode(command))]
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
        if poll.poll(left * 1000):
            return True
    return False


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _tail(errors: IO[Any], *, passes_on: bool) -> str:
    """The end of what was written to a file; all of it also goes to our own standard error if it `passes_on`."""
    fd = errors.fileno()
    size = os.fstat(fd).st_size
    if passes_on and size:
        at = 0
        while at < size and (data := os.pread(fd, 1 << 20, at)):
            os.write(2, data)
            at += len(data)
    with open(f"/proc/self/fd/{fd}", "rb") as file:  # noqa: PTH123 - ours may be for writing only
        file.seek(max(0, size - _TAIL_BYTES))
        data = file.read(_TAIL_BYTES)
    text = data.decode(errors="replace").rpartition("--> end executable <--\n")[2]
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
