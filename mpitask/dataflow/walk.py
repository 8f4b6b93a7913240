"""Futures and files inside arguments: finding them, and putting values in their place.

Containers are looked into at any depth: list, tuple (named ones too), set, frozenset, dict and dataclass instances.
Nothing of the caller's is changed: a container with something to replace is copied.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable
from typing import Any


def find(value: Any, wanted: type | tuple[type, ...], found: list[Any]) -> None:
    """Appends every instance of `wanted` inside `value` to `found`, in order."""
    if isinstance(value, wanted):
        found.append(value)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            find(item, wanted, found)
    elif isinstance(value, dict):
        for key, item in value.items():
            find(key, wanted, found)
            find(item, wanted, found)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            find(getattr(value, field.name, None), wanted, found)


def replace(value: Any, wanted: type | tuple[type, ...], with_what: Callable[[Any], Any]) -> Any:  # noqa: PLR0911
    """The same with every instance of `wanted` replaced; what holds none is the caller's own object."""
    if isinstance(value, wanted):
        return with_what(value)
    if isinstance(value, list | tuple | set | frozenset):
        items = [replace(item, wanted, with_what) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        pairs = [(replace(k, wanted, with_what), replace(v, wanted, with_what)) for k, v in value.items()]
        if all(nk is k and nv is v for (nk, nv), (k, v) in zip(pairs, value.items(), strict=True)):
            return value
        copy = value.copy()
        copy.clear()
        copy.update(pairs)
        return copy
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {}
        for field in dataclasses.fields(value):
            old = getattr(value, field.name, None)
            new = replace(old, wanted, with_what)
            if new is not old:
                changes[field.name] = new
        return dataclasses.replace(value, **changes) if changes else value
    return value


def futures_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[concurrent.futures.Future[Any]]:
    """All futures in the arguments of a call."""
    found: list[concurrent.futures.Future[Any]] = []
    find((args, kwargs), concurrent.futures.Future, found)
    return found


def resolved(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with values in place of futures, which must all have ended well."""
    values: tuple[tuple[Any, ...], dict[str, Any]] = replace(
        (args, kwargs), concurrent.futures.Future, lambda future: future.result()
    )
    return values
