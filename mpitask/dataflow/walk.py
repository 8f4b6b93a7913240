"""Futures and files inside arguments: finding them, and putting values in their place.

Containers are looked into at any depth: list, tuple (named ones too), set, frozenset, dict and dataclass instances.
Nothing of the caller's is changed: a container with something to replace is copied, as what it is. Containers of the
caller's own classes are read by what they inherit: nothing that these classes define is called before that.
"""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from mpitask.codec import SCALARS

_ITERABLE: tuple[Any, ...] = (list, tuple, set, frozenset)
_CONTAINERS = frozenset({*_ITERABLE, dict})

Wanted = type | tuple[type, ...]


def find(value: Any, wanted: Wanted) -> list[Any]:
    """Every instance of `wanted` inside `value`, in order. What holds itself is looked into once."""
    found: list[Any] = []
    _look(value, wanted, found, set())
    return found


def futures_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[concurrent.futures.Future[Any]]:
    """All futures in the arguments of a call."""
    return find((args, kwargs), concurrent.futures.Future)


def _look(value: Any, wanted: Wanted, found: list[Any], seen: set[int]) -> None:
    if type(value) in SCALARS:
        return
    if type(value) not in _CONTAINERS and isinstance(value, wanted):
        found.append(value)
        return
    fields = _fields(value)
    if not (fields or isinstance(value, list | tuple | set | frozenset | dict)) or id(value) in seen:
        return
    seen.add(id(value))
    if not fields and not isinstance(value, dict) and SCALARS.issuperset(map(type, _items(value))):
        return
    if isinstance(value, dict):
        for key, item in dict.items(value):
            _look(key, wanted, found, seen)
            _look(item, wanted, found, seen)
    else:
        for item in [_field(value, name) for name in fields] if fields else _items(value):
            _look(item, wanted, found, seen)


def _fields(value: Any) -> list[str]:
    """Names of the fields of a dataclass instance."""
    if not hasattr(type(value), "__dataclass_fields__"):
        return []
    return [field.name for field in dataclasses.fields(value)]


def _field(value: Any, name: str) -> Any:
    try:
        return object.__getattribute__(value, name)
    except Exception:  # noqa: BLE001 - not set, or computed by the user's code
        return None


def _items(value: Any) -> Iterator[Any]:
    for kind in _ITERABLE:
        if isinstance(value, kind):
            return iter(kind.__iter__(value))
    raise TypeError(type(value))


def replace(value: Any, wanted: Wanted, with_what: Callable[[Any], Any]) -> Any:  # noqa: PLR0911
    """The same with every instance of `wanted` replaced; what holds none is the caller's own object."""
    if type(value) in SCALARS:
        return value
    if isinstance(value, wanted):
        return with_what(value)
    if fields := _fields(value):
        return _replace_fields(value, fields, wanted, with_what)
    if isinstance(value, list | tuple | set | frozenset):
        before = list(_items(value))
        items = [replace(item, wanted, with_what) for item in before]
        if all(new is old for new, old in zip(items, before, strict=True)):
            return value
        if isinstance(value, list | set):
            return _refilled(value, items)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        known = list(dict.items(value))
        pairs = [(replace(k, wanted, with_what), replace(v, wanted, with_what)) for k, v in known]
        if all(nk is k and nv is v for (nk, nv), (k, v) in zip(pairs, known, strict=True)):
            return value
        return _refilled(value, pairs)
    return value


def _refilled(value: Any, items: list[Any]) -> Any:
    """A copy of a list, set or dict, of whatever subclass, with other contents."""
    new = copy.copy(value)
    new.clear()
    if isinstance(new, dict):
        for key, item in items:  # not by update(): a Counter counts there
            new[key] = item
    elif isinstance(new, list):
        new.extend(items)
    else:
        new.update(items)
    return new


def _replace_fields(value: Any, fields: list[str], wanted: Wanted, with_what: Callable[[Any], Any]) -> Any:
    changed = value
    for name in fields:
        old = _field(value, name)
        new = replace(old, wanted, with_what)
        if new is not old:
            changed = copy.copy(value) if changed is value else changed
            object.__setattr__(changed, name, new)  # frozen ones too; what __init__ does was done once
    return changed


def resolved(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with values in place of futures, which must all have ended well."""
    values: tuple[tuple[Any, ...], dict[str, Any]] = replace(
        (args, kwargs), concurrent.futures.Future, lambda future: future.result()
    )
    return values
