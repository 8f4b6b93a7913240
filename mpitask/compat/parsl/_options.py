"""What constructors with many options share: keeping them, telling given ones from defaults, checking types."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from mpitask.codec import SCALARS
from mpitask.errors import ConfigurationError, shown


class TypeCheckError(ConfigurationError, TypeError):
    """An argument has a type that it may not have."""


def wrong_type(text: str) -> TypeCheckError:
    """A TypeCheckError, which is also typeguard's for scripts that have imported that to catch it."""
    typeguard = sys.modules.get("typeguard")
    if typeguard is None:
        return TypeCheckError(text)
    kind: type[TypeCheckError] = _typeguards(typeguard.TypeCheckError)
    return kind(text)


@functools.cache
def _typeguards(base: type[Exception]) -> Any:
    return type("TypeCheckError", (TypeCheckError, base), {"__str__": Exception.__str__, "__module__": __name__})


def keep(obj: object, given: Mapping[str, Any]) -> None:
    """Makes the arguments of `__init__` attributes; `given` is its `locals()`."""
    for name, value in given.items():
        if name not in ("self", "__class__"):
            setattr(obj, name, value)


def refuse_unknown(name: str, options: Mapping[str, Any]) -> None:
    """Raises for options that nobody knows.

    Raises:
        TypeError: there are any.
    """
    for option in options:
        raise TypeError(f"{name}.__init__() got an unexpected keyword argument {option!r}")


def given_options(obj: object) -> dict[str, Any]:
    """The options of an object that are not the defaults of its constructor."""
    options = {}
    for parameter in list(inspect.signature(type(obj).__init__).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = getattr(obj, parameter.name, parameter.default)
        default = parameter.default
        if default is parameter.empty or (value is not default and not _alike(value, default)):
            options[parameter.name] = value
    return options


def _alike(value: Any, default: Any) -> bool:
    """Whether two values of one of our own options say the same. Values of the script's classes are never compared."""
    kind = type(value)
    if kind is not type(default):
        return False
    if kind in SCALARS:
        return bool(value == default)
    if kind in (list, tuple):
        return len(value) == len(default) and all(map(_alike, value, default))
    if kind is dict:
        return (
            len(value) == len(default)
            and _alike(list(value), list(default))
            and _alike([*value.values()], [*default.values()])
        )
    if kind.__module__.startswith("mpitask."):
        mine, other = given_options(value), given_options(default)
        return _alike(mine, other)
    return value is default


def check_type(name: str, value: object, *allowed: Any) -> None:
    """Raises for a wrong type.

    Raises:
        TypeCheckError: the value is of none of the allowed types; None stands for itself.
    """
    for kind in allowed:
        if value is None if kind is None else callable(value) if kind is callable else isinstance(value, kind):
            return
    names = " or ".join("None" if kind is None else getattr(kind, "__name__", str(kind)) for kind in allowed)
    raise wrong_type(f"{name}={shown(value)} is of type {type(value).__qualname__}: give {names}")


def specification_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's resource specification.

    Raises:
        TypeCheckError: it is no dict.
    """
    spec = kwargs.get("parsl_resource_specification")
    if spec is None:
        return {}
    check_type("parsl_resource_specification", spec, dict)
    found: dict[str, Any] = spec
    return found


def is_compared_by_identity(value: object) -> bool:
    """Whether an object may be looked up without calling any code of its class."""
    own: Any = type(value).__eq__
    return own is object.__eq__


def parameters_of(fn: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function, as far as they are known."""
    call: Any = getattr(type(fn), "__call__", None)  # noqa: B004 - of the class
    asked = (
        fn if is_compared_by_identity(fn) or not isinstance(call, types.FunctionType) else types.MethodType(call, fn)
    )
    try:
        return list(inspect.signature(asked).parameters.values())
    except (TypeError, ValueError):  # many functions written in C
        return []
