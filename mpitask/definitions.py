"""Classes of the script inside arguments and results: pickled once, and unpickled once by each process.

The bytes of a class are kept as long as what it refers to stays the same (`watch`), and go along with each value under
a token. Who has seen the token leaves them. A class that was changed has other bytes and another token; unpickled,
they bring the class that is there already to that state, and those of a call that was made before to the one before.

Thread rule: any thread.
"""

from __future__ import annotations

import pickle
import uuid
import weakref
from collections.abc import Callable
from typing import Any

from mpitask.pickling import goes_by_value
from mpitask.watch import Check, watch

_HEAP_TYPE = 1 << 9  # of `type.__flags__`: made by a class statement, or the like


class _Sent:
    __slots__ = ("check", "get", "reduced")

    def __init__(self, cls: type, check: Check | None, reduced: Any) -> None:
        number = id(cls)
        self.get = weakref.ref(cls, lambda _: _sent.pop(number, None))
        self.check, self.reduced = check, reduced


_sent: dict[int, _Sent] = {}  # by id()
_had: weakref.WeakValueDictionary[bytes, type] = weakref.WeakValueDictionary()  # by token


def reduce_class(cls: type, dumps: Callable[[Any], bytes]) -> Any:
    """For a pickler's `reducer_override`; `dumps` pickles a class with all that it refers to. May be NotImplemented."""
    sent = _sent.get(id(cls))
    if sent is not None and sent.get() is cls and (sent.check is None or sent.check(cls)):
        return sent.reduced
    if not cls.__flags__ & _HEAP_TYPE or not goes_by_value(cls):
        return NotImplemented
    check = watch(cls)
    try:
        reduced: Any = load_class, (uuid.uuid4().bytes, dumps(cls))
    except Exception:  # noqa: BLE001 - it refers to something that only the pickle of a call can have
        reduced = NotImplemented
    _sent[id(cls)] = _Sent(cls, check, reduced)
    return reduced


class _Latest:
    """Which state of a class is in place in this process: calls need not come in the order in which they were made."""

    __slots__ = ("_ref", "token")

    def __init__(self, cls: type, token: bytes) -> None:
        number = id(cls)
        self._ref = weakref.ref(cls, lambda _: _latest.pop(number, None))
        self.token = token


_latest: dict[int, _Latest] = {}  # by id()


def load_class(token: bytes, data: bytes) -> Any:
    """The class, as it was when the token was made."""
    cls = _had.get(token)
    if cls is None or _latest[id(cls)].token != token:
        cls = _had[token] = pickle.loads(data)
        _latest[id(cls)] = _Latest(cls, token)
    return cls
