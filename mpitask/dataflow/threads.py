"""A few threads for work beside the script.

Unlike those of `concurrent.futures`, they do not keep the program from ending: whatever a user's function does in one
of them, an interrupted script is gone at once.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("mpitask")


class Threads:
    """Up to `count` daemon threads, started as there is work for them. Any thread may call any method."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._changed = threading.Condition()
        self._work: collections.deque[Callable[[], Any]] = collections.deque()
        self._started = 0
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[[], Any]) -> None:
        """Has `fn()` called soon. What it raises is logged.

        Raises:
            RuntimeError: after `close`.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("these threads have ended")
            self._work.append(fn)
            if self._idle >= len(self._work):
                self._changed.notify()
            elif self._started < self._count:
                self._started += 1
                threading.Thread(target=self._run, name=f"{self._name}-{self._started}", daemon=True).start()

    def close(self, *, drop: bool = True) -> None:
        """Takes no more. What has not begun is dropped, or done; then each thread ends. Does not wait."""
        with self._changed:
            self._closed = True
            if drop:
                self._work.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            fn = self._next()
            if fn is None:
                return
            try:
                fn()
            except BaseException:  # noqa: BLE001 - the thread is needed for the next one
                _log.exception("%r raised", fn)
            del fn  # nothing is kept alive while it waits

    def _next(self) -> Callable[[], Any] | None:
        with self._changed:
            while not self._work:
                if self._closed:
                    return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return self._work.popleft()
