"""`@python_app`: calling the function makes a task of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar, overload

from mpitask.apps.base import App, decorator
from mpitask.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")


class PythonApp(App[P, R]):
    """A Python function whose calls are tasks."""

    kind = "python_app"


@overload
def python_app(function: Callable[P, R]) -> PythonApp[P, R]: ...


@overload
def python_app(
    function: None = None,
    *,
    retries: int | None = None,
    priority: int = 0,
    cache: bool = False,
    ignore_for_cache: Sequence[str] | None = None,
    cache_key: Literal["content", "name"] = "content",
    cache_failures: bool | None = None,
    executors: Sequence[str] | str = "all",
    label: str | None = None,
    walltime: float | None = None,
    resources: dict[str, Any] | None = None,
    data_flow_kernel: Engine | None = None,
) -> Callable[[Callable[P, R]], PythonApp[P, R]]: ...


def python_app(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Makes an app of a function: `@python_app` or `@python_app(retries=2)`.

    Keyword arguments of a call with a meaning (the function gets them, too, if it takes them): `inputs`, `outputs`
    (Files), `stdout`, `stderr` (a path, (path, mode), a File or AUTO_LOGNAME: what the function and its child
    processes write goes there), `walltime` (seconds; then `AppTimeout`), `label`; and, if the function does not take
    them, `retries` and `priority`.

    Args:
        function: any callable that can be pickled by cloudpickle. An object, or the one that a bound method is of,
            goes with each call, in the state that it has then.
        **options: retries: how often a call that fails is tried again; None: as the engine's configuration says.
            priority: calls with a higher one are started before waiting calls with a lower one.
            cache: a call with the same arguments as an earlier one gives that one's result (a copy of it).
            ignore_for_cache: names of arguments that do not count for that.
            cache_key: "content": a function whose code, or anything of the user's that it refers to, has changed is
            another one (see `mpitask.memo.functions`); "name": it is the same as long as its name is.
            cache_failures: a call that has failed fails again without being run, until the run ends; None: as the
            engine's configuration says. executors: labels; the engine is one.
            label: for the names of automatic log files. walltime: of calls that give none.
            resources: cores, memory and gpus of a call.
            data_flow_kernel: the engine, if not the current one.

    Raises:
        ConfigurationError: `function` is not callable, or an option is out of range.
    """
    return decorator(PythonApp, function, options)
