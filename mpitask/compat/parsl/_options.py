"""What constructors with many options share: keeping them, telling given ones from defaults, checking types."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from typing import Any

from mpitask.errors import ConfigurationError


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
    if type(value) is not type(default):
        return False
    try:
        return bool(value == default) or repr(value) == repr(default)
    except Exception:  # noqa: BLE001 - whatever a value's own methods do
        return False


def check_type(name: str, value: object, *allowed: Any) -> None:
    """Raises for a wrong type.

    Raises:
        TypeCheckError: the value is of none of the allowed types; None stands for itself.
    """
    for kind in allowed:
        if value is None if kind is None else callable(value) if kind is callable else isinstance(value, kind):
            return
    names = " or ".join("None" if kind is None else getattr(kind, "__name__", str(kind)) for kind in allowed)
    raise wrong_type(f"{name}={value!r} is of type {type(value).__qualname__}: give {names}")
