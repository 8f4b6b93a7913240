"""`@bash_app`: the function returns a command line, which a worker runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpitask.apps.base import App, P, apply, decorator
from mpitask.worker.call import BashCall


class BashApp(App[P, int]):
    """A function that returns a command line; its calls are tasks that run it."""

    kind = "bash_app"

    def _callee(self) -> Callable[..., Any]:
        return apply if self._has_state else self._guard()

    def _state(self) -> tuple[Any, ...]:
        return (self._guard(),) if self._has_state else ()

    def _make_guard(self) -> Callable[..., Any]:
        return BashCall(self._fn, self.name, self._taken.hidden)


def bash_app(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Makes an app of a function that returns a command line for bash. The result is 0.

    The options, and the keyword arguments of a call with a meaning, are those of `python_app`. `outputs` must be there
    when the command has ended.

    Raises:
        ConfigurationError: `function` is not callable, or an option is out of range.
    """
    return decorator(BashApp, function, options)
