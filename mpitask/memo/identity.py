"""What makes two values the same for memoisation: each becomes bytes that say its type and its content.

Guarantees:

- Two values have the same bytes if types and contents are the same at every depth, and different bytes otherwise:
  `[1, 2]`, `(1, 2)`, `1`, `True`, `1.0`, `"a"` and `b"a"` all differ, and so do `0.0` and `-0.0`. The order of a dict
  or of a set is not content; that of an OrderedDict is.
- The bytes do not depend on the process, on PYTHONHASHSEED, or on which parts of a value are one and the same object.
- Every encoding says its own length, so that encodings in a row cannot be mistaken for others.

Relies on names: a function or a class is its module and qualified name. Only functions that have no name of their own
(lambdas, and those defined inside functions) are their code, defaults and closure, when they are given as arguments.

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
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import sha256
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


class _NoIdentityError(ValueError):
    """A value that even cloudpickle refuses."""

    def __init__(self, cls: type, why: str) -> None:
        name = cls.__qualname__
        super().__init__(
            f"a value of type {cls.__module__}.{name} cannot be part of a memoisation key: {why}. Say what identifies "
            f"it: @id_for_memo.register({name}) def f(obj, output_ref=False) -> bytes; or ignore its argument"
        )
        self.why = why


class _TooManyStepsError(Exception):
    pass


class _Walk(threading.local):
    """Where this thread is: the objects around the one being encoded (id → depth), and how many it has entered."""

    def __init__(self) -> None:
        self.path: dict[int, int] = {}
        self.steps = 0


_walk = _Walk()


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


def _class(cls: type) -> bytes:
    return seal(b"t", _utf8(f"{cls.__module__}\0{cls.__qualname__}"))


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


def _enter(obj: Any, output_ref: bool, encode: Encoder) -> bytes:
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
            return seal(b"n", _enter(obj.reshape(()), output_ref, _array))
        if type(obj) is numpy.ndarray:
            return _enter(obj, output_ref, _array)
    if isinstance(obj, os.PathLike) and hasattr(obj, "url"):
        return _file(obj, output_ref)
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return _enter(obj, output_ref, _dataclass)
    return _enter(obj, output_ref, _object)


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
    return _enter(obj, output_ref, _list_content)


@id_for_memo.register(tuple)
def _tuple(obj: tuple[Any, ...], output_ref: bool = False) -> bytes:
    if type(obj) is not tuple:
        return _plain(obj, output_ref)
    return _enter(obj, output_ref, _tuple_content)


@id_for_memo.register(dict)
def _dict(obj: dict[Any, Any], output_ref: bool = False) -> bytes:
    if type(obj) is not dict:
        return _plain(obj, output_ref)
    return _enter(obj, output_ref, _dict_content)


def _dict_content(obj: dict[Any, Any], output_ref: bool) -> bytes:
    return seal(_DICT, b"".join(sorted(_pairs(obj.items(), output_ref))))


@id_for_memo.register(set)
def _set(obj: set[Any], output_ref: bool = False) -> bytes:
    return _unordered(_SET, obj, output_ref) if type(obj) is set else _plain(obj, output_ref)


@id_for_memo.register(frozenset)
def _frozenset(obj: frozenset[Any], output_ref: bool = False) -> bytes:
    return _unordered(_FROZENSET, obj, output_ref) if type(obj) is frozenset else _plain(obj, output_ref)


@id_for_memo.register(type)
def _type(obj: type, output_ref: bool = False) -> bytes:  # noqa: ARG001
    return _class(obj)


@id_for_memo.register(types.CodeType)
def _code(code: types.CodeType, output_ref: bool = False) -> bytes:  # noqa: ARG001
    """What a code object does; not where it stands."""
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return sequence(b"K", (code.co_code, code.co_exceptiontable, code.co_consts, counts, names), False)


@id_for_memo.register(types.FunctionType)
def _function(fn: types.FunctionType, output_ref: bool = False) -> bytes:
    if "<" not in fn.__qualname__:
        return function_id(fn)
    return _enter(fn, output_ref, _nameless_function)


def _nameless_function(fn: types.FunctionType, output_ref: bool) -> bytes:
    return seal(b"L", function_id(fn, source=True) + item((fn.__defaults__, fn.__kwdefaults__), output_ref))


_plain: Encoder = id_for_memo.dispatch(object)  # the function above, without the dispatch
_OURS = frozenset(id_for_memo.registry.values())


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
        return seal(b"G", _class(type(obj)) + text(f"{module}\0{reduced}"))
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


# -- functions --


def _is_bound(fn: Any) -> bool:
    owner = getattr(fn, "__self__", None)
    return owner is not None and not isinstance(owner, types.ModuleType)


def function_id(fn: Callable[..., Any], source: bool = False) -> bytes:
    """The identity of a function: its module and qualified name; of any other callable: what it holds.

    A function whose body is edited stays the same function. A lambda has no name of its own, so its code belongs to it.

    Args:
        fn: the function.
        source: its code belongs to it, and the values that it closes over. What it calls does not.

    Raises:
        ValueError: it closes over (or is) something that cannot be pickled.
    """
    name = getattr(fn, "__qualname__", None)
    if not isinstance(name, str) or _is_bound(fn):
        return item(fn)
    parts = [text(f"{getattr(fn, '__module__', None)}\0{name}")]
    code = getattr(fn, "__code__", None)
    if code is not None and (source or name.endswith("<lambda>")):
        parts.append(_code(code))
    if source:
        parts += [_cell(cell) for cell in getattr(fn, "__closure__", None) or ()]
    return seal(b"Q", b"".join(parts))


def _cell(cell: types.CellType) -> bytes:
    try:
        content = cell.cell_contents
    except ValueError:  # not filled yet
        return b"X"
    return item(content)
