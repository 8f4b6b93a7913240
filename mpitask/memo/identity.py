"""What makes two values the same for memoisation: each becomes bytes that say its type and its content.

Guarantees:

- Two values have the same bytes if types and contents are the same at every depth, and different bytes otherwise:
  `[1, 2]`, `(1, 2)`, `1`, `True`, `1.0`, `"a"` and `b"a"` all differ, and so do `0.0` and `-0.0`. The order of a dict
  or of a set is not content; that of an OrderedDict is.
- The bytes do not depend on the process, on PYTHONHASHSEED, or on which parts of a value are one and the same object.
- Every encoding says its own length, so that encodings in a row cannot be mistaken for others.

Functions and classes are in functions.py: what they are is their content, or by another rule their name.

Objects of other classes are taken apart as pickle would, and the parts encoded; so an object is what a worker would
get of it. cloudpickle comes last, for modules and the like: its bytes may differ from process to process, which costs
a repeated run of a task and never gives a wrong result. It was rejected as the way for all objects: it gives every
class of the script's own a random number, and bytes that depend on which strings are shared.

Thread rule: every function may be called from any thread.
"""

from __future__ import annotations

import contextlib
import copyreg
import dataclasses
import enum
import functools
import os
import struct
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from types import FunctionType
from typing import Any
from urllib.parse import urlsplit

import cloudpickle

_INLINE_BYTES = 256
_STEPS_MAX = 1_000_000  # into objects, for one value; a graph with more paths than that is left to cloudpickle
_INT_MAX = 1 << 256  # beyond this, decimal digits cost more than bytes (and Python limits their number)
_DOUBLE = struct.Struct(">d")
_DOUBLES = struct.Struct(">dd")
_DICT, _LIST, _SET, _FROZENSET, _TUPLE = b"d", b"l", b"e", b"z", b"u"

Encoder = Callable[[Any, bool], bytes]


class NotIdentified(ValueError):  # noqa: N818 - says what is the matter, as others of this package do
    """A function or a class holds something that cannot be identified: no call that uses it can be memoised.

    Args:
        where: what holds it, in words.
        why: what is wrong with it.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")


class _NoIdentityError(ValueError):
    """A value that even cloudpickle refuses."""

    def __init__(self, cls: type, why: str) -> None:
        name = cls.__qualname__
        super().__init__(
            f"a value of type {cls.__module__}.{name} cannot be part of a memoisation key: {why}. Say what identifies "
            f"it: @id_for_memo.register({name}) def f(obj, output_ref=False) -> bytes; or ignore its argument"
        )
        self.why = why
        self.what = f"a value of type {cls.__module__}.{name}, and {why}"


class _TooManyStepsError(Exception):
    pass


class _Walk(threading.local):
    """Where this thread is: the objects around the one being encoded (id → depth), and how many it has entered."""

    def __init__(self) -> None:
        self.path: dict[int, int] = {}
        self.steps = 0
        self.by_name = False  # functions and classes are their names


_walk = _Walk()


@contextlib.contextmanager
def names_only() -> Iterator[None]:
    """In the body, in this thread, functions and classes are their names, whatever they hold."""
    before, _walk.by_name = _walk.by_name, True
    try:
        yield
    finally:
        _walk.by_name = before


def is_by_name() -> bool:
    """Whether functions and classes are their names, in this thread now."""
    return _walk.by_name


# -- pieces --


def seal(tag: bytes, body: bytes) -> bytes:
    """Tag, length and content; a long content is replaced by its digest. `tag` is one byte that is not a digit."""
    if len(body) <= _INLINE_BYTES:
        return b"%b%d:%b" % (tag, len(body), body)
    return b"%b%d#%b" % (tag, len(body), sha256(body).digest())


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def text(value: str) -> bytes:
    """The encoding of a string."""
    return seal(b"s", _utf8(value))


def sequence(tag: bytes, values: Iterable[Any], output_ref: bool) -> bytes:
    """The encodings of some values, in order, under one tag."""
    return seal(tag, b"".join([item(value, output_ref) for value in values]))


def _unordered(tag: bytes, values: Iterable[Any], output_ref: bool) -> bytes:
    return seal(tag, b"".join(sorted([item(value, output_ref) for value in values])))


def _pairs(values: Iterable[tuple[Any, Any]], output_ref: bool) -> list[bytes]:
    return [item(key, False) + item(value, output_ref) for key, value in values]


def name_of(obj: Any) -> bytes:
    """The encoding of the module and the qualified name of a class or a function."""
    return seal(b"t", _utf8(f"{obj.__module__}\0{obj.__qualname__}"))


def _class(cls: type) -> bytes:
    return item(cls)


_list_content = functools.partial(sequence, _LIST)
_tuple_content = functools.partial(sequence, _TUPLE)


def item(obj: Any, output_ref: bool = False) -> bytes:
    """The encoding of a value as a part of a larger one. What a user's function gives is marked with the type.

    Raises:
        ValueError: it cannot be pickled, or a registered function gave something else than bytes.
    """
    encode = id_for_memo.dispatch(obj.__class__)
    if encode in _OURS:
        return encode(obj, output_ref)
    data = encode(obj, output_ref=output_ref)
    if not isinstance(data, bytes):
        raise ValueError(
            f"the function registered for {type(obj).__qualname__} gave {type(data).__qualname__}, not bytes"
        )
    return seal(b"o", _class(type(obj)) + data)


def enter(obj: Any, output_ref: bool, encode: Encoder) -> bytes:
    """Encodes an object that can contain itself: there, it is the number of steps back to it."""
    path = _walk.path
    key = id(obj)
    if key in path:
        return b"^%d;" % (len(path) - path[key])
    path[key] = len(path)
    _walk.steps += 1
    try:
        if _walk.steps > _STEPS_MAX:
            raise _TooManyStepsError
        return encode(obj, output_ref)
    except (RecursionError, _TooManyStepsError):
        if len(path) > 1:
            raise
        return _pickled(obj)  # the whole of it: parts that were pickled where Python's stack ended would not be stable
    finally:
        del path[key]
        if not path:
            _walk.steps = 0


def _pickled(obj: Any) -> bytes:
    if isinstance(obj, type | FunctionType) and not _walk.by_name:  # pickles of these may be no more than names
        raise NotIdentified(f"{obj.__module__}.{obj.__qualname__}", "what it refers to is nested too deeply")
    try:
        data = cloudpickle.dumps(obj, 5)
    except Exception as error:
        if isinstance(error.__cause__ or error, RecursionError) and len(_walk.path) > 1:
            raise RecursionError from error  # not the object's fault: the outermost one is tried with all of the stack
        raise _NoIdentityError(type(obj), f"{type(error).__name__}: {error}") from error
    return seal(b"P", _class(type(obj)) + data)


# -- the registry --


@functools.singledispatch
def id_for_memo(obj: Any, output_ref: bool = False) -> bytes:
    """The bytes that stand for a value in the key of a memoised call.

    Users add types, or replace how one is treated; a more specific class wins, and values inside others are treated
    the same way::

        @id_for_memo.register(Mesh)
        def mesh_id(mesh, output_ref=False):
            return mesh.digest

    Args:
        obj: the value.
        output_ref: it is a place for output: a file is then its name, whatever it holds.

    Raises:
        ValueError: a part of it cannot be pickled; the message names the type.
    """
    if isinstance(obj, enum.Enum):
        return seal(b"E", _class(type(obj)) + text(str(obj.name)) + item(obj.value, output_ref))
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "generic"):
        if isinstance(obj, numpy.generic):
            return seal(b"n", enter(obj.reshape(()), output_ref, _array))
        if type(obj) is numpy.ndarray:
            return enter(obj, output_ref, _array)
    if isinstance(obj, os.PathLike) and hasattr(obj, "url"):
        return _file(obj, output_ref)
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return enter(obj, output_ref, _dataclass)
    return enter(obj, output_ref, _object)


# Each of these treats exactly its own type; an instance of a subclass has more to it, and is treated as an object.


@id_for_memo.register(type(None))
def _none(obj: None, output_ref: bool = False) -> bytes:  # noqa: ARG001
    return b"N"


@id_for_memo.register(bool)
def _bool(obj: bool, output_ref: bool = False) -> bytes:  # noqa: ARG001
    return b"T" if obj else b"F"


@id_for_memo.register(int)
def _int(obj: int, output_ref: bool = False) -> bytes:
    if type(obj) is not int:
        return _plain(obj, output_ref)
    if -_INT_MAX < obj < _INT_MAX:
        return b"i%d;" % obj
    return seal(b"I", obj.to_bytes(obj.bit_length() // 8 + 1, "big", signed=True))


@id_for_memo.register(float)
def _float(obj: float, output_ref: bool = False) -> bytes:
    if type(obj) is not float:
        return _plain(obj, output_ref)
    return b"f" + _DOUBLE.pack(obj)


@id_for_memo.register(complex)
def _complex(obj: complex, output_ref: bool = False) -> bytes:
    if type(obj) is not complex:
        return _plain(obj, output_ref)
    return b"c" + _DOUBLES.pack(obj.real, obj.imag)


@id_for_memo.register(str)
def _str(obj: str, output_ref: bool = False) -> bytes:
    return text(obj) if type(obj) is str else _plain(obj, output_ref)


@id_for_memo.register(bytes)
def _bytes(obj: bytes, output_ref: bool = False) -> bytes:
    return seal(b"b", obj) if type(obj) is bytes else _plain(obj, output_ref)


@id_for_memo.register(bytearray)
def _bytearray(obj: bytearray, output_ref: bool = False) -> bytes:
    return seal(b"B", bytes(obj)) if type(obj) is bytearray else _plain(obj, output_ref)


@id_for_memo.register(list)
def _list(obj: list[Any], output_ref: bool = False) -> bytes:
    if type(obj) is not list:
        return _plain(obj, output_ref)
    return enter(obj, output_ref, _list_content)


@id_for_memo.register(tuple)
def _tuple(obj: tuple[Any, ...], output_ref: bool = False) -> bytes:
    if type(obj) is not tuple:
        return _plain(obj, output_ref)
    return enter(obj, output_ref, _tuple_content)


@id_for_memo.register(dict)
def _dict(obj: dict[Any, Any], output_ref: bool = False) -> bytes:
    if type(obj) is not dict:
        return _plain(obj, output_ref)
    return enter(obj, output_ref, _dict_content)


def _dict_content(obj: dict[Any, Any], output_ref: bool) -> bytes:
    return seal(_DICT, b"".join(sorted(_pairs(obj.items(), output_ref))))


@id_for_memo.register(set)
def _set(obj: set[Any], output_ref: bool = False) -> bytes:
    return _unordered(_SET, obj, output_ref) if type(obj) is set else _plain(obj, output_ref)


@id_for_memo.register(frozenset)
def _frozenset(obj: frozenset[Any], output_ref: bool = False) -> bytes:
    return _unordered(_FROZENSET, obj, output_ref) if type(obj) is frozenset else _plain(obj, output_ref)


_plain: Encoder = id_for_memo.dispatch(object)  # the function above, without the dispatch
_OURS = set(id_for_memo.registry.values())


def register_own(kind: type, encode: Encoder) -> None:
    """Adds a type whose encoding needs no mark: for this package's other modules."""
    id_for_memo.register(kind)(encode)
    _OURS.add(encode)


# -- what the registry leaves to be looked at --


def _dataclass(obj: Any, output_ref: bool) -> bytes:
    fields = [(field.name, getattr(obj, field.name)) for field in dataclasses.fields(obj) if hasattr(obj, field.name)]
    return seal(b"D", _class(type(obj)) + b"".join(_pairs(fields, output_ref)))


def _file(obj: Any, output_ref: bool) -> bytes:
    """An object that names a file: its url and, for input that is there, when and how large it was written."""
    url = str(obj.url)
    state = None
    if not output_ref:
        with contextlib.suppress(OSError, ValueError):
            if urlsplit(url).scheme in ("", "file"):
                status = os.stat(obj)  # noqa: PTH116 - any os.PathLike
                state = (status.st_mtime_ns, status.st_size)
    return seal(b"U", _class(type(obj)) + text(url) + item(state))


def _array(array: Any, output_ref: bool) -> bytes:
    """A numpy array; numpy need not be imported for it."""
    dtype = array.dtype
    flat = array.ravel()
    if dtype.names is not None:  # field by field: the padding between them is not content
        content = b"".join(_pairs([(name, array[name]) for name in dtype.names], output_ref))
    elif dtype.hasobject or dtype.kind == "T":
        content = sequence(_LIST, flat.tolist(), output_ref)
    elif dtype.char in "gG":  # the 80-bit floats of x86 have padding, too
        content = sequence(_LIST, [str(value) for value in flat], output_ref)
    elif flat.nbytes == 0:
        content = b""
    else:
        content = sha256(flat.view("u1").data).digest()
    return seal(b"A", text(dtype.str) + item(array.shape) + content)


def _object(obj: Any, output_ref: bool) -> bytes:
    """An object as pickle would take it apart."""
    try:
        reduce = copyreg.dispatch_table.get(type(obj))
        reduced = obj.__reduce_ex__(4) if reduce is None else reduce(obj)
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 - cloudpickle knows some more, and else says what is wrong
        return _pickled(obj)
    if isinstance(reduced, str):
        module = getattr(obj, "__module__", None)
        if getattr(sys.modules.get(str(module)), reduced, None) is not obj:
            return _pickled(obj)
        inner = getattr(obj, "__wrapped__", None)  # of a decorated function (lru_cache, say)
        decorated = b"" if inner is None or _walk.by_name else item(inner)
        return seal(b"G", _class(type(obj)) + text(f"{module}\0{reduced}") + decorated)
    make, args, state, values, entries = (*reduced, None, None, None)[:5]
    parts = [_class(type(obj)), item(make)]
    own: Any = type(obj).__reduce__
    usual = own in (set.__reduce__, frozenset.__reduce__)  # then args are the members, in any order
    try:
        parts.append(_unordered(_SET, obj, output_ref) if usual else item(args, output_ref))
        parts.append(item(state, output_ref))
        parts.append(sequence(_LIST, values or (), output_ref))
        pairs = _pairs(entries or (), output_ref)
        parts.append(seal(_DICT, b"".join(pairs if isinstance(obj, OrderedDict) else sorted(pairs))))
    except _NoIdentityError as error:
        raise _NoIdentityError(type(obj), error.why) from error
    return seal(b"O", b"".join(parts))
