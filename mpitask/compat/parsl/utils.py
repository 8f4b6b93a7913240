"""`parsl.utils`: small helpers that scripts import."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

from mpitask.compat.parsl.app.errors import BadStdStreamFile
from mpitask.compat.parsl.version import VERSION
from mpitask.memo import get_all_checkpoints, get_last_checkpoint

__all__ = [
    "AtomicIDCounter",
    "AutoCancelTimer",
    "RepresentationMixin",
    "Timer",
    "execute_wait",
    "get_all_checkpoints",
    "get_last_checkpoint",
    "get_std_fname_mode",
    "get_version",
    "sanitize_dns_label_rfc1123",
    "sanitize_dns_subdomain_rfc1123",
    "setproctitle",
    "time_limited_open",
    "wait_for_file",
    "wtime_to_minutes",
]

_LABEL_MAX = 63
_SUBDOMAIN_MAX = 253


def get_version() -> str:
    """The version of Parsl that this stands for."""
    return VERSION


class RepresentationMixin:
    """A `repr` that is an expression: the class with the arguments that would make the same object.

    Each parameter of `__init__` should be an attribute of the same name; one that is not is left out.
    """

    __max_width__: ClassVar[int] = 80
    _validate_repr: ClassVar[bool] = False

    def __repr__(self) -> str:
        name = type(self).__name__
        shown = []
        for parameter in list(inspect.signature(type(self).__init__).parameters.values())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if not hasattr(self, parameter.name):
                if not self._validate_repr:
                    continue
                raise AttributeError(
                    f"class {name} uses {parameter.name} in the constructor, but does not define it as an attribute"
                )
            value = repr(getattr(self, parameter.name))
            shown.append(value if parameter.default is parameter.empty else f"{parameter.name}={value}")
        line = f"{name}({', '.join(shown)})"
        if len(line) <= self.__max_width__:
            return line
        body = ",\n".join(shown).replace("\n", "\n    ")
        return f"{name}(\n    {body}\n)"


def get_std_fname_mode(
    fdname: str, stdfspec: str | os.PathLike[str] | tuple[str | os.PathLike[str], str]
) -> tuple[str, str]:
    """The path and the mode of what was given as `stdout` or `stderr`.

    Raises:
        BadStdStreamFile: it is a tuple of another form.
    """
    if not isinstance(stdfspec, tuple):
        return os.fspath(stdfspec), "a+"
    if len(stdfspec) != 2 or not isinstance(stdfspec[0], str | os.PathLike) or not isinstance(stdfspec[1], str):
        raise BadStdStreamFile(f"{fdname}={stdfspec!r}: give a path, or (path, mode)")
    return os.fspath(stdfspec[0]), stdfspec[1]


@contextlib.contextmanager
def wait_for_file(path: str, seconds: int = 10) -> Iterator[None]:
    """Waits up to `seconds` until the file is there, then goes on either way."""
    deadline = time.monotonic() + seconds
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield


@contextlib.contextmanager
def time_limited_open(path: str, mode: str, seconds: int = 1) -> Iterator[IO[Any]]:
    """Opens a file that may appear within `seconds`."""
    with wait_for_file(path, seconds), Path(path).open(mode) as file:
        yield file


def wtime_to_minutes(time_string: str) -> int:
    """Minutes in "HH:MM:SS", at least 1."""
    hours, minutes, seconds = (int(part) for part in time_string.split(":"))
    return max(1, hours * 60 + minutes + (1 if seconds else 0))


class AtomicIDCounter:
    """Gives 0, 1, 2, … to any threads that ask."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def get_id(self) -> int:
        """The next number."""
        return next(self._numbers)


def setproctitle(title: str) -> None:
    """Names this process for `ps`, where the package setproctitle is installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("setproctitle").setproctitle(title)


class Timer:
    """Calls a function every `interval` seconds in a thread, until closed."""

    def __init__(self, callback: Callable[..., Any], *args: Any, interval: float = 5, name: str | None = None) -> None:
        self._callback = callback
        self._args = args
        self._interval_s = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name or "Timer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.make_callback()

    def make_callback(self) -> None:
        """Calls it now."""
        self._callback(*self._args)

    def close(self, timeout: float | None = None) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join(timeout)


class AutoCancelTimer(threading.Timer):
    """A `threading.Timer` for `with`: what has not happened at the block's end does not happen."""

    def __enter__(self) -> AutoCancelTimer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()


def sanitize_dns_label_rfc1123(raw_string: str) -> str:
    """The text as a DNS label: lower case letters, digits and hyphens, at most 63.

    Raises:
        ValueError: nothing is left of it.
    """
    label = re.sub(r"[^a-z0-9-]+", "-", raw_string.lower()).strip("-")
    label = re.sub(r"-{2,}", "-", label)[:_LABEL_MAX].strip("-")
    if not label:
        raise ValueError(f"Sanitized DNS label is empty for input '{raw_string}'")
    return label


def sanitize_dns_subdomain_rfc1123(raw_string: str) -> str:
    """The text as DNS labels with dots between them, at most 253 characters.

    Raises:
        ValueError: nothing is left of it.
    """
    labels = [sanitize_dns_label_rfc1123(part) for part in raw_string.split(".") if re.search("[a-zA-Z0-9]", part)]
    name = ".".join(labels)[:_SUBDOMAIN_MAX].strip(".-")
    if not name:
        raise ValueError(f"Sanitized DNS subdomain is empty for input '{raw_string}'")
    return name


def execute_wait(cmd: str, walltime: int | None = None) -> tuple[int, str, str]:
    """Runs a command line in the shell: its exit code, standard output and error.

    Raises:
        subprocess.TimeoutExpired: it has not ended within `walltime` seconds.
    """
    done = subprocess.run(cmd, shell=True, capture_output=True, timeout=walltime, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()
