"""What a task has changed in its process is put back before the next one begins.

That is the folder, variables, the file mode mask, signal handlers, timers and the locale. To look after each task would
cost more than most tasks. So the few functions that change these are replaced in worker processes by ones that take a
note, and only after a task that has called one something is put back, to what the script has (`surroundings`). Changes
that code in C makes by itself are not seen. All else stays, on purpose: imported modules and what they hold, open
files, threads, random numbers.

Thread rule: the thread that runs tasks. Notes may come from any thread.
"""

from __future__ import annotations

import functools
import locale
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpitask import surroundings

touched: set[str] = set()
"""Kinds of things that may have been changed since the last `put_back`."""

set_handler, set_timer = signal.signal, signal.setitimer
"""The plain ones, for what mpitask sets around a task and takes back itself."""

_signals: dict[int, Any] = {}
"""Handlers as they were before the first change."""
_locale = ""


def watch() -> None:
    """Replaces the functions, in this process."""
    global _locale
    _locale = locale.setlocale(locale.LC_ALL)
    _note(os, "chdir", "folder")
    _note(os, "fchdir", "folder")
    _note(os, "umask", "umask")
    _note(os, "putenv", "variables")  # os.environ calls these
    _note(os, "unsetenv", "variables")
    _note(locale, "setlocale", "locale")
    _note(signal, "setitimer", "timers")
    _note(signal, "alarm", "timers")
    signal.signal = _set_noted_handler  # type: ignore[assignment]


@functools.wraps(set_handler)
def _set_noted_handler(number: Any, handler: Any, /) -> Any:
    before = set_handler(number, handler)
    _signals.setdefault(int(number), before)
    touched.add("signals")
    return before


def _note(module: Any, name: str, kind: str) -> None:
    plain: Callable[..., Any] = getattr(module, name)

    @functools.wraps(plain)
    def noting(*args: Any, **kwargs: Any) -> Any:
        touched.add(kind)
        return plain(*args, **kwargs)

    noting.__module__ = module.__name__  # where it can be found, by pickle for instance
    setattr(module, name, noting)


@dataclass
class Left:
    """What a task that waits has set, to be there again when it goes on."""

    folder: str | None
    variables: dict[str, str]
    umask: int
    signals: dict[int, Any]
    locale: str


def put_aside() -> Left:
    """Keeps what the task that waits has set, and puts everything back for those that run meanwhile."""
    try:
        folder = os.getcwd()  # noqa: PTH109 - a string is wanted
    except OSError:
        folder = None
    mask = os.umask(0)
    os.umask(mask)
    handlers = {number: signal.getsignal(number) for number in _signals}
    left = Left(folder, dict(os.environ), mask, handlers, locale.setlocale(locale.LC_ALL))
    put_back(timers=False)
    return left


def take_up(left: Left) -> None:
    """The task goes on."""
    if left.folder is not None:
        os.chdir(left.folder)
    _set_variables(left.variables)
    os.umask(left.umask)
    for number, handler in left.signals.items():
        signal.signal(number, handler)
    locale.setlocale(locale.LC_ALL, left.locale)


def put_back(*, timers: bool = True) -> None:
    """Makes everything as before the task."""
    kinds = set(touched)
    around = surroundings.current()
    if timers and "timers" in kinds:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    for number, handler in list(_signals.items()) if "signals" in kinds else ():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    if "locale" in kinds:
        locale.setlocale(locale.LC_ALL, _locale)
    if around is not None:
        if "variables" in kinds:
            _set_variables(around.variables)
        if "umask" in kinds and around.umask >= 0:
            os.umask(around.umask)
        if "folder" in kinds and around.folder:
            os.chdir(around.folder)
    _signals.clear()
    touched.clear()


def keep() -> None:
    """What has been changed up to now stays: an initializer has done it, for all tasks."""
    global _locale
    around = surroundings.current()
    if around is None or not touched:
        return
    around.keep()
    _locale = locale.setlocale(locale.LC_ALL)
    _signals.clear()
    touched.clear()


def _set_variables(wanted: dict[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
