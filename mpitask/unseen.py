"""Failures that the script has not looked at: at its end it is told of them.

To look is to ask a future for its result or exception, to await it or to ask it why; also one of a task that needs the
failed one. The core keeps the first tasks that fail; here are the numbers of those that somebody has looked at.

Thread rule: any thread. A task that gives a value costs nothing here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mpitask.errors import DependencyError
from mpitask.native import lib

_MOST_SEEN = 1 << 12
_MOST_NAMES = 4
_MOST_CHARS = 400


class Unseen:
    """Of one engine."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._seen: set[int] = set()

    def saw(self, number: int, error: BaseException) -> None:
        """Somebody gets the exception of a task."""
        self._seen.add(number)
        if isinstance(error, DependencyError):
            self._seen.add(error.cause)
        if len(self._seen) > _MOST_SEEN:
            self._seen = self._seen & {lib.mt_driver_number(handle) for handle in self._borrowed()}

    def handles(self) -> list[int]:
        """Of failures that nobody has looked at, the first that there were; a reference of each for the caller."""
        found = []
        for i, handle in enumerate(self._borrowed()):
            if lib.mt_driver_number(handle) not in self._seen:
                found.append(lib.mt_driver_failed_task(self._driver, i))
        return found

    def _borrowed(self) -> Iterator[int]:
        i = 0
        while handle := lib.mt_driver_failed_task(self._driver, i):
            lib.mt_driver_release(self._driver, handle)  # the core has another reference
            yield handle
            i += 1


def describe(names: list[str | None], why: str, are_all: bool) -> str:
    """In one line: how many, of which apps, and why the first."""
    n = len(names)
    counted = Counter(name for name in names if name is not None).most_common(_MOST_NAMES)
    apps = f" ({', '.join(f'{times} of {name}' for name, times in counted)})" if counted else ""
    why = " ".join(why.split())
    why = why if len(why) <= _MOST_CHARS else why[: _MOST_CHARS - 3] + "..."
    some = f"{'' if are_all else 'more than '}{n} task{'' if n == 1 else 's'}"
    whose = "its result" if n == 1 else "their results"
    return (
        f"{some}{apps} failed, and nobody looked at {whose}. The first: {why}; see exception() or why() of the futures"
    )
