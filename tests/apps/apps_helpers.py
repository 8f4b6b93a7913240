"""What the tests of apps share; workers import it, so it is light."""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import itertools
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mpitask import python_app


def soon(what: Callable[[], Any], limit_s: float = 60) -> Any:
    """Waits until `what()` is true; its value then."""
    deadline = time.monotonic() + limit_s
    while not (value := what()):
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(0.002)
    return value


class Counted:
    """An app that counts its runs in a file."""

    def __init__(self, path: Path, body: Callable[..., Any], **options: Any) -> None:
        self.path = path
        name = str(path)

        def counted(*args: Any, **kwargs: Any) -> Any:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(fd, b"x")
            os.close(fd)
            return body(*args, **kwargs)

        counted.__qualname__ = name  # what makes functions the same
        self.app = python_app(counted, cache=True, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The app."""
        return self.app(*args, **kwargs)

    @property
    def runs(self) -> int:
        """How often the body was run."""
        return self.path.stat().st_size if self.path.exists() else 0


def triple(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
    """All three."""
    return a, b, c


def ask_another() -> int:
    """Needs a task, and waits for it."""
    another: int = python_app(plus)(30, 12).result(timeout=60)
    return another


class Asking:
    """Whoever unpickles it gets what `ask_another` gives there."""

    def __reduce__(self) -> Any:
        return ask_another, ()


@python_app
def hold(gate: Any, value: Any = None) -> Any:
    """Keeps its worker until the gate exists."""
    deadline = time.monotonic() + 60
    while not os.path.exists(gate) and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.002)
    return value


def plus(a: Any, b: Any = 10) -> Any:
    """The sum."""
    return a + b


class Scaled:
    """A callable object; compared by its content, so it has no hash."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scaled) and self.factor == other.factor

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, x: int) -> int:
        return self.factor * x

    def method(self, x: int) -> int:
        return self.factor + x


class Point(NamedTuple):
    x: Any
    y: Any


class Labels(list):  # type: ignore[type-arg]
    colour = "red"


@dataclasses.dataclass(frozen=True)
class Box:
    inside: Any
    size: int = dataclasses.field(default=0, init=False)


def use_up(how: str) -> None:
    if how == "sleep":
        time.sleep(60)
    elif how == "loop":
        while True:
            pass
    elif how == "child":
        subprocess.run(["sleep", "60"], check=False)
    elif how == "usleep":
        while True:
            ctypes.CDLL(None).usleep(100_000)
    elif how == "swallows":
        while True:
            try:
                time.sleep(60)
            except Exception:
                continue
    else:
        collections.deque(itertools.repeat(None), maxlen=0)  # in C, and never asks whether there are signals


def echo(x: Any = None, label: Any = None, outputs: Any = (), stdout: Any = None) -> Any:
    return x


def fail(text: str, label: Any = None) -> None:
    raise ValueError(text)
