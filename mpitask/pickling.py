"""The pickler for what the plain one cannot do: functions and classes of the script, and what belongs to them.

cloudpickle's, with what it lacks:

- Code keeps its file name (`sources`).
- A class has its `__slots__` where it is made again. One that comes back to the process that it is from is that
  process's own, as it is there: what a copy of it has become elsewhere is not written over it.
- Functions with `lru_cache` and `singledispatch`, cached properties, weak dictionaries.
- What belongs to one process (open files, sockets, locks, generators) is refused in words that say what to do.

Thread rule: any thread; a pickler belongs to one.
"""

from __future__ import annotations

import concurrent.futures
import functools
import io
import socket
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle

from mpitask import sources

_own: dict[int, weakref.ref[type]] = {}  # classes of this process that have gone by value
_made: dict[int, weakref.ref[type]] = {}  # classes that were made here of what came from elsewhere

_FILE = "cannot pickle an open file: give its path, and open it in the task"
_SOCKET = "cannot pickle a connection: give the address, and connect in the task"
_LOCK = "cannot pickle a lock, which works within one process only, and tasks run in others"
_GENERATOR = "cannot pickle a generator: give a list of its items, or what makes it"
_REFUSED: dict[type, str] = {
    io.TextIOWrapper: _FILE,
    io.BufferedReader: _FILE,
    io.BufferedWriter: _FILE,
    io.BufferedRandom: _FILE,
    io.FileIO: _FILE,
    socket.socket: _SOCKET,
    type(threading.Lock()): _LOCK,
    type(threading.RLock()): _LOCK,
    types.GeneratorType: _GENERATOR,
    types.CoroutineType: "cannot pickle a coroutine: give what makes it",
    types.AsyncGeneratorType: _GENERATOR,
    threading.Thread: "cannot pickle a thread, which is one process's",
}
_cached = type(functools.lru_cache(lambda: None))


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """One pickle."""

    def reducer_override(self, obj: Any) -> Any:
        """What C asks for every object that is no plain scalar or container."""
        reduce = _REDUCERS.get(type(obj))
        if reduce is not None:
            reduced = reduce(obj)
            return super().reducer_override(obj) if reduced is NotImplemented else reduced
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) == 6:
            return _reduce_class(obj, *reduced)
        return reduced


_OWN_WAY = (type, types.FunctionType, concurrent.futures.Future)


def is_plain(obj: Any) -> bool:
    """Whether an object is pickled as the standard pickler does it; what it is made of may not be."""
    return type(obj) not in _REDUCERS and not isinstance(obj, _OWN_WAY)


# -- classes --


def _is_in(table: dict[int, weakref.ref[type]], cls: type) -> bool:
    ref = table.get(id(cls))
    return ref is not None and ref() is cls


def _note(table: dict[int, weakref.ref[type]], cls: type) -> None:
    number = id(cls)
    if not _is_in(table, cls):
        table[number] = weakref.ref(cls, lambda _: table.pop(number, None))


def _reduce_class(cls: type, make: Any, args: Any, state: Any, _: Any, __: Any, set_state: Any) -> Any:
    if not _is_in(_made, cls):
        _note(_own, cls)
    makes_its_slots = typing.NamedTuple in getattr(cls, "__orig_bases__", ())
    if "__slots__" in cls.__dict__ and not makes_its_slots and len(args) > 3 and isinstance(args[3], dict):
        args = (*args[:3], args[3] | {"__slots__": cls.__dict__["__slots__"]}, *args[4:])
    return make, args, (set_state, state), None, None, _set_class


def _set_class(cls: type, state: tuple[Callable[[type, Any], Any], Any]) -> type:
    if not _is_in(_own, cls):
        set_state, inner = state
        set_state(cls, inner)
        _note(_made, cls)
    return cls


# -- what belongs to functions and classes --


def goes_by_value(obj: Any) -> bool:
    """Whether a function or class cannot be imported by workers under its name."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    if module is None or module.__name__ in ("__main__", *cloudpickle.list_registry_pickle_by_value()):
        return True
    found: Any = module
    for name in str(getattr(obj, "__qualname__", "")).split("."):
        found = getattr(found, name, None)
    return found is not obj


def _reduce_cached(fn: Any) -> Any:
    if not goes_by_value(fn):
        return NotImplemented
    limits = fn.cache_parameters()
    return _make_cached, (fn.__wrapped__, limits["maxsize"], limits["typed"])


def _make_cached(fn: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(fn)


def _reduce_cached_property(prop: functools.cached_property[Any]) -> Any:
    return _make_cached_property, (prop.func, prop.attrname)  # without its lock


def _make_cached_property(fn: Callable[[Any], Any], name: str | None) -> Any:
    prop = functools.cached_property(fn)
    prop.attrname = name
    return prop


def _reduce_weak(table: Any) -> Any:
    return type(table), (), None, None, iter(list(table.items()))


def _refuse(obj: Any) -> Any:
    if obj is sys.stdout or obj is sys.stderr:
        return NotImplemented
    raise TypeError(_REFUSED[type(obj)])


_REDUCERS: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys(_REFUSED, _refuse),
    types.CodeType: sources.reduce_code,
    _cached: _reduce_cached,
    functools.cached_property: _reduce_cached_property,
    weakref.WeakKeyDictionary: _reduce_weak,
    weakref.WeakValueDictionary: _reduce_weak,
}
