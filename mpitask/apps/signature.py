"""What a function takes, and what a call of its app may give: found wrong where the call stands, not in its result."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from mpitask.errors import ConfigurationError

RESERVED = frozenset({"inputs", "outputs", "stdout", "stderr", "walltime", "parsl_resource_specification", "label"})
"""Keyword arguments with a meaning for the call as a whole; the function gets them, too, if it takes them."""
OF_CALL = frozenset({"priority", "retries"})
"""Further ones that are for the app alone, unless the function takes them."""


def check_kind(fn: Callable[..., Any], decorator: str) -> None:
    """Refuses functions whose call gives no value.

    Raises:
        ConfigurationError: `fn` is a coroutine function or a generator function.
    """
    inner = fn if inspect.isroutine(fn) or hasattr(fn, "func") else getattr(fn, "__call__", fn)  # noqa: B004
    name = getattr(fn, "__qualname__", repr(fn))
    for function in (fn, inner):
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"{decorator} cannot make an app of {name}, which is `async def`: a task must return a value, not a "
                f"coroutine. Make it a plain function that calls `asyncio.run({name}(...))`; futures can be awaited"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(
                f"{decorator} cannot make an app of {name}, which is a generator function: a task must return a value, "
                "and generators cannot be sent. Return a list of what it yields"
            )


class Taken:
    """The arguments that a function takes, as far as that is known for certain."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self._name = name
        self._signature = _signature(fn)
        parameters = [] if self._signature is None else list(self._signature.parameters.values())
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        takes_any = self._signature is None or any(p.kind is p.VAR_KEYWORD for p in parameters)
        needs_keyword = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        self.hidden = frozenset() if takes_any else RESERVED - names
        """Words with a meaning that the function itself does not take."""
        self.of_call = frozenset() if takes_any else OF_CALL - names
        self.fewest = sys.maxsize if needs_keyword else sum(p.default is p.empty for p in places)
        """With so many positional arguments, and no others, a call is right,"""
        self.most = len(places)
        """and up to so many."""
        if self._signature is None:
            self.fewest = 0
        if self._signature is None or any(p.kind is p.VAR_POSITIONAL for p in parameters):
            self.most = sys.maxsize

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Looks at the arguments of a call, those with a meaning for the app included.

        Raises:
            TypeError: the function does not take them.
        """
        if self._signature is None:
            return
        try:
            self._signature.bind(*args, **{name: kwargs[name] for name in kwargs.keys() - self.hidden})
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}") from None


def _signature(fn: Callable[..., Any]) -> inspect.Signature | None:
    """None: it may be called otherwise than it looks."""
    if isinstance(type(fn).__call__, types.FunctionType) and not hasattr(fn, "__wrapped__"):
        fn = types.MethodType(type(fn).__call__, fn)
    if not isinstance(fn, types.FunctionType | types.MethodType) or hasattr(fn, "__signature__"):
        return None
    try:
        return inspect.signature(fn, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
