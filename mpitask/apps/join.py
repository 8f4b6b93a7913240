"""`@join_app`: the function runs beside the script and returns futures; the call stands for their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpitask.apps.base import App, P, R, decorator
from mpitask.worker.call import Shortened


class JoinApp(App[P, R]):
    """A function that calls apps and returns their futures."""

    kind = "join_app"
    _task_kind = "join"

    def _make_guard(self) -> Callable[..., Any]:
        # It runs in this process, beside others.
        return Shortened(self._fn, self._taken.hidden) if self._taken.hidden else self._fn


def join_app(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Makes an app of a function that returns a future, or a list, tuple or dict of futures.

    The function runs in a thread of the script's process, once its arguments have values; no thread waits for the
    futures it returns, so joins may be nested as deep as you like. The call's result is theirs; if one fails, it
    fails with `JoinError`.

    Raises:
        ConfigurationError: `function` is not callable, or an option is out of range.
    """
    return decorator(JoinApp, function, options)
