"""`@join_app`: the function runs beside the script and returns futures; the call stands for their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpitask.apps.base import App, P, R, decorator
from mpitask.dataflow import Kernel
from mpitask.futures import Future


class JoinApp(App[P, R]):
    """A function that calls apps and returns their futures."""

    kind = "join_app"

    def _needs_kernel(self) -> bool:
        return True

    def _submit(self, kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[R]:
        given = {name: value for name, value in self._defaults.items() if name not in kwargs and value is not None}
        return kernel.submit(
            self._fn,
            args,
            kwargs | given,
            name=self.name,
            kind="join",
            retries=self._retries,
            cache=self._cache,
            ignore_for_cache=self._ignore,
        )


def join_app(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Makes an app of a function that returns a future, or a list, tuple or dict of futures.

    The function runs in a thread of the script's process, once its arguments have values; no thread waits for the
    futures it returns, so joins may be nested as deep as you like. The call's result is theirs; if one fails, it
    fails with `JoinError`.

    Raises:
        ConfigurationError: `function` is not callable, or an option is out of range.
    """
    return decorator(JoinApp, function, options)
