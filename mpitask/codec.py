"""How Python objects become bytes and come back: arguments, functions, values, exceptions.

Three encodings, told apart by a number that travels beside the bytes:

- MARSHAL: tuples of plain scalars below 2 GiB; a third of pickle's cost, as most calls are.
- PICKLE: pickle protocol 5. The standard pickler is tried first; what it cannot do (lambdas, closures, classes of the
  script) is left to cloudpickle. A pickle that mentions `__main__` is made again by cloudpickle, which stores the
  definition itself: a worker has another main module.
- FLAT: as MARSHAL, with futures among the scalars: each has become an ellipsis, in the order of the dependencies.
- BUFFERS: a pickle with its large buffers (arrays) behind it, so that they are copied once and not twice.
- PARTS: the values of a span's parts in a row, each in an encoding of its own. The core makes them.

A bit says that the arguments begin with a span: `span_call`.

Beside the encoding of a value may stand the bits SHARED (decoded once by a worker, for all tasks) and, on the way to a
worker only, MAPPED (the bytes lie elsewhere and are to be mapped).

Futures inside arguments, at any depth, pickle themselves as placeholders (`placeholder`) and report themselves to the
collector of the call being made: no traversal of arguments is needed.

Thread rule: all functions may be called from any thread; a collector and a resolver belong to the thread that set them.
"""

from __future__ import annotations

import bisect
import collections
import concurrent.futures
import contextlib
import copyreg
import functools
import io
import marshal
import pickle
import pickletools
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from mpitask.definitions import load_class, reduce_class
from mpitask.errors import SerializationError, TaskError, as_failure
from mpitask.pickling import ByValuePickler, is_plain

NONE, MARSHAL, PICKLE, BUFFERS, LOST, FLAT, PARTS = 0, 1, 2, 3, 4, 5, 6
KWARGS = 16
"""Bit: the bytes are (args, kwargs) and not args alone."""
SHARED, MAPPED = 32, 64
SPAN = 128
"""Bit: before the arguments, which are scalars, stands the span that the task is of."""

SCALARS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_MARSHAL_VERSION = 2  # without back references: faster, and scalars have none
_DESCRIBED_BYTES, _DESCRIBED = 1 << 16, 8
_NAME_CHARACTERS = 60  # of a function, in messages
_OUT_OF_BAND_BYTES = 8192  # a smaller buffer costs less inside the pickle
_HEAD = struct.Struct("=QQ")
_SIZE = struct.Struct("=Q")
_SPAN = struct.Struct("=QQQII")  # mt_span
_PARTS_HEAD = struct.Struct("=QQII")  # mt_parts_head

Bytes = bytes | bytearray | memoryview


class Collector(Protocol):
    """Gives each future met while pickling its number among the call's dependencies."""

    def index_of(self, future: concurrent.futures.Future[Any]) -> int:
        """The number, from 0, or from the end as -1, -2 ...; the same for the same future.

        Raises:
            TypeError: it must not be there.
        """


class _State(threading.local):
    collector: Collector | None = None
    resolve: Callable[[int], Any] | None = None


_state = _State()


class _MainModule(Exception):  # noqa: N818 - a signal, not an error
    pass


NO_FUTURE = "a future can be pickled only as an argument of a task; a task must return a value, not a future"


def placeholder(index: int) -> Any:
    """What a future has become in a pickle: unpickling calls this, and gets the future's value."""
    if _state.resolve is None:
        raise SerializationError(
            "these bytes refer to other tasks and can only be unpickled as the arguments of a task"
        )
    return _state.resolve(index)


def reduce_future(future: concurrent.futures.Future[Any]) -> tuple[Callable[[int], Any], tuple[int]]:
    """For `__reduce__` of futures."""
    if _state.collector is None:
        raise TypeError(NO_FUTURE)
    return placeholder, (_state.collector.index_of(future),)


def reduce_shared(shared: concurrent.futures.Future[Any]) -> tuple[Callable[[int], Any], tuple[int]]:
    """For `__reduce__` of shared objects."""
    if _state.collector is None:
        raise TypeError(
            "a shared object can be pickled only as an argument of a task or as part of its function; "
            "give what it stands for (its `result()`) elsewhere"
        )
    return placeholder, (_state.collector.index_of(shared),)


def _file_of(_: int, file: Any) -> Any:
    """What the future of a file has become: the task it comes from is a dependency, its value is not needed."""
    return file


def reduce_data_future(
    parent: concurrent.futures.Future[Any], file: Any
) -> tuple[Callable[[int, Any], Any], tuple[int, Any]]:
    """For `__reduce__` of futures of files."""
    if _state.collector is None:
        raise TypeError("a future can be pickled only as an argument of a task; a task must return a File instead")
    return _file_of, (_state.collector.index_of(parent), file)


class _Pickler(ByValuePickler):
    """And futures of any kind become placeholders. In arguments and results classes stand for themselves."""

    has_definitions = False

    def reducer_override(self, obj: Any) -> Any:
        """As there."""
        if is_plain(obj) or obj is load_class:  # most that is met, with every call
            return NotImplemented
        if isinstance(obj, concurrent.futures.Future):
            own = type(obj).__reduce__ is not object.__reduce__
            return obj.__reduce__() if own else reduce_future(obj)
        if self.has_definitions and isinstance(obj, type):
            reduced = reduce_class(obj, _dumps_alone)
            if reduced is not NotImplemented:
                return reduced
        return super().reducer_override(obj)


class _ValuePickler(_Pickler):
    has_definitions = True


def _dumps_by_value(
    obj: Any, keep: Callable[[pickle.PickleBuffer], bool] | None = None, make: type[_Pickler] = _Pickler
) -> bytes:
    with io.BytesIO() as stream:
        make(stream, 5, buffer_callback=keep).dump(obj)
        return stream.getvalue()


def _dumps_alone(obj: Any) -> bytes:
    """For the arguments of any call: without a future."""
    outer, _state.collector = _state.collector, None
    try:
        return _dumps_by_value(obj)
    finally:
        _state.collector = outer


def _dumps(obj: Any, buffers: list[pickle.PickleBuffer], make: type[_Pickler]) -> bytes:
    def keep(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < _OUT_OF_BAND_BYTES:
            return True
        buffers.append(buffer)
        return False

    try:
        data = pickle.dumps(obj, 5, buffer_callback=keep)
        if b"__main__" not in data:
            return data
        raise _MainModule
    except Exception:  # noqa: BLE001 - whatever the plain pickler does not like, the other one may
        buffers.clear()
        return _dumps_by_value(obj, keep, make)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % 8)


def encode(obj: Any, make: type[_Pickler] = _ValuePickler) -> tuple[int, list[Bytes | pickle.PickleBuffer]]:
    """An object as (codec, parts); the parts in a row are the bytes."""
    buffers: list[pickle.PickleBuffer] = []
    return _with_buffers(_dumps(obj, buffers, make), buffers)


def _with_buffers(data: bytes, buffers: list[pickle.PickleBuffer]) -> tuple[int, list[Bytes | pickle.PickleBuffer]]:
    if not buffers:
        return PICKLE, [data]
    raws = [buffer.raw() for buffer in buffers]
    sizes = b"".join(_SIZE.pack(raw.nbytes) for raw in raws)
    parts: list[Bytes | pickle.PickleBuffer] = [_HEAD.pack(len(raws), len(data)) + sizes + data + _padding(len(data))]
    for raw in raws:
        parts.append(raw)
        if raw.nbytes % 8:
            parts.append(_padding(raw.nbytes))
    return BUFFERS, parts


def encode_value(obj: Any) -> tuple[int, list[Bytes | pickle.PickleBuffer]]:
    """As `encode`, with the fast way for scalars."""
    if type(obj) in SCALARS:
        with contextlib.suppress(ValueError):  # marshal takes less than 2 GiB
            return MARSHAL, [marshal.dumps(obj, _MARSHAL_VERSION)]
    return encode(obj)


def encode_shared(obj: Any) -> tuple[int, list[Bytes | pickle.PickleBuffer]]:
    """As `encode_value`, for `decode` with `borrow`: all buffers lie behind the pickle, so all are read-only there.

    Raises:
        SerializationError: the object cannot be pickled.
    """
    if type(obj) in SCALARS:
        with contextlib.suppress(ValueError):  # as there
            return MARSHAL, [marshal.dumps(obj, _MARSHAL_VERSION)]
    buffers: list[pickle.PickleBuffer] = []
    try:
        try:
            data = _dump_shared(pickle.Pickler, copyreg.dispatch_table, obj, buffers)
            if b"__main__" in data:
                raise _MainModule
        except Exception:  # noqa: BLE001 - as in _dumps
            buffers.clear()
            data = _dump_shared(_Pickler, _Pickler.dispatch_table, obj, buffers)
    except Exception as error:
        raise SerializationError(
            f"an object of type {type(obj).__qualname__} cannot be shared: {type(error).__name__}: {error}"
        ) from error
    return _with_buffers(data, buffers)


def _dump_shared(make: Any, table: Any, obj: Any, buffers: list[pickle.PickleBuffer]) -> bytes:
    with io.BytesIO() as stream:
        pickler = make(stream, 5, buffer_callback=buffers.append)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            pickler.dispatch_table = collections.ChainMap({numpy.ndarray: _reduce_array}, table)
        pickler.dump(obj)
        return stream.getvalue()


def _reduce_array(array: Any) -> Any:
    """An array with gaps would be pickled without a buffer, and so be writable where it is decoded."""
    has_buffer = array.flags.c_contiguous or array.flags.f_contiguous or array.dtype.hasobject
    return (array if has_buffer else array.copy(order="C")).__reduce_ex__(5)


def encode_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], collector: Collector
) -> tuple[int, list[Bytes | pickle.PickleBuffer]]:
    """The arguments of a call. Futures in them are reported to the collector.

    Raises:
        SerializationError: an argument cannot be pickled; the message names it.
    """
    outer = _state.collector
    _state.collector = collector
    try:
        codec, parts = encode((args, kwargs) if kwargs else args)
    except Exception as error:
        raise _blame(args, kwargs, error) from error
    finally:
        _state.collector = outer
    return (codec | KWARGS if kwargs else codec), parts


def _blame(args: Sequence[Any], kwargs: dict[str, Any], error: Exception) -> SerializationError:
    named = [(f"argument {i}", value) for i, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            encode(value)
        except Exception:  # noqa: BLE001
            return SerializationError(
                f"{name} ({type(value).__qualname__}) cannot be pickled: {type(error).__name__}: {error}"
            )
    return SerializationError(f"the arguments cannot be pickled: {type(error).__name__}: {error}")


def encode_result(obj: Any, fn: Callable[..., Any] | None) -> tuple[int, list[Bytes | pickle.PickleBuffer]]:
    """As `encode`, for what a task has returned.

    Raises:
        SerializationError: it cannot be pickled; the message names the function and what it is.
    """
    try:
        return encode(obj)
    except Exception as error:
        raise SerializationError(
            f"the result of {name_of(fn)} ({type(obj).__qualname__}{_place_in(obj)}) cannot be pickled: "
            f"{type(error).__name__}: {error}"
        ) from error


def _place_in(obj: Any) -> str:
    """Which item of a list, tuple or dict it is that cannot be pickled, if one is."""
    items = obj.items() if type(obj) is dict else enumerate(obj) if type(obj) in (list, tuple) else ()
    for key, value in items:
        try:
            encode(value)
        except Exception:  # noqa: BLE001
            return f", at [{key!r}]: {type(value).__qualname__}{_place_in(value)}"
    return ""


def name_of(fn: Any) -> str:
    """How messages call a function, whatever we have wrapped around it."""
    while names := getattr(fn, "WRAPS", ()):
        fn = getattr(fn, names[0])
    return str(getattr(fn, "__qualname__", repr(fn)))


def short_name(fn: Any) -> str | None:
    """How messages call the tasks of a function; None: it is one of ours, which says nothing to anybody."""
    while isinstance(names := getattr(type(fn), "WRAPS", None), tuple) and names:
        fn = getattr(fn, names[0])
    if isinstance(fn, functools.partial):
        return short_name(fn.func)
    if str(getattr(fn, "__module__", "")).startswith("mpitask."):
        return None
    name = getattr(fn, "__qualname__", None)
    name = name if isinstance(name, str) else type(fn).__qualname__
    return name.rpartition("<locals>.")[2][:_NAME_CHARACTERS]


class Parts:
    """The values of consecutive pieces of a span. Each is unpickled when it is asked for."""

    def __init__(self, data: Bytes) -> None:
        view = memoryview(data)
        at, first = 0, 0
        self.starts: list[int] = []
        """The first item of each piece, counted from the first of all."""
        self._bytes: list[tuple[int, memoryview]] = []
        while at < len(view):
            count, size, codec, _ = _PARTS_HEAD.unpack_from(view, at)
            at += _PARTS_HEAD.size
            self._bytes.append((codec, view[at : at + size]))
            self.starts.append(first)
            at += size + -size % 8
            first += count

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, index: int) -> Any:
        return decode(*self._bytes[index])

    def __iter__(self) -> Iterator[Any]:
        return (decode(*value) for value in self._bytes)

    def find(self, item: int) -> int:
        """The piece that holds an item."""
        return bisect.bisect_right(self.starts, item) - 1


def span_call(
    first: int, count: int, args: tuple[Any, ...], *, combine: int = 0, losses: int = 0, chunk: int = 0
) -> tuple[int, bytes]:
    """The arguments of a span: its function is called with a piece's first item and their number, then `args`.

    Args:
        first: its first item.
        count: how many.
        args: plain scalars.
        combine: id of the function that makes one value of the `Parts` of several pieces; 0: none.
        losses: how often a piece is tried again after the loss of its worker.
        chunk: items that a worker gets at a time; 0: as many as are good.
    """
    return SPAN | MARSHAL, _SPAN.pack(first, count, combine, losses, chunk) + marshal.dumps(args, _MARSHAL_VERSION)


def decode(codec: int, data: Bytes, *, borrow: bool = False) -> Any:
    """The object behind the bytes. `data` may go away afterwards: buffers are copied, so arrays are writable.

    With `borrow` the object's buffers are views of `data`, and writable if that is.
    """
    kind = codec & 15
    if kind == MARSHAL:
        return marshal.loads(data)
    if kind == PICKLE:
        return pickle.loads(data)
    if kind == PARTS:
        return Parts(bytes(data))
    if kind != BUFFERS:
        raise SerializationError(f"bytes of an unknown encoding ({codec}): are all ranks running the same mpitask?")
    view = memoryview(data)
    count, size = _HEAD.unpack_from(view)
    sizes = [_SIZE.unpack_from(view, _HEAD.size + i * _SIZE.size)[0] for i in range(count)]
    at = _HEAD.size + count * _SIZE.size
    body = view[at : at + size]
    at += size + -size % 8
    buffers: list[bytearray | memoryview] = []
    for length in sizes:
        buffer = view[at : at + length]
        buffers.append(buffer if borrow else bytearray(buffer))
        at += length + -length % 8
    return pickle.loads(body, buffers=buffers)


def describe(kind: int, data: Bytes) -> str:
    """Which classes and functions a pickle needs, for messages; nothing is run."""
    view = memoryview(data)
    if kind & 15 == BUFFERS:
        count, size = _HEAD.unpack_from(view)
        view = view[_HEAD.size + count * _SIZE.size :][:size]
    found: dict[str, None] = {}
    strings: list[str] = []
    with contextlib.suppress(Exception):
        for opcode, value, _ in pickletools.genops(bytes(view[:_DESCRIBED_BYTES])):
            if "UNICODE" in opcode.name:
                strings.append(str(value))
            elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
                found[".".join(strings[-2:])] = None
    return f"it needs {', '.join(list(found)[:_DESCRIBED])}" if found else f"it has {len(data)} bytes"


def _decode_with(resolve: Callable[[int], Any], codec: int, data: Bytes) -> Any:
    outer = _state.resolve  # of a task in which this one runs, because what it unpickles waits
    _state.resolve = resolve
    try:
        return decode(codec, data)
    finally:
        _state.resolve = outer


def decode_call(codec: int, data: Bytes, resolve: Callable[[int], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The (args, kwargs) of a call that is not FLAT; `resolve` gives the value of dependency i."""
    if codec & SPAN:
        first, count, *_ = _SPAN.unpack_from(data)
        return (first, count, *marshal.loads(memoryview(data)[_SPAN.size :])), {}
    if codec == PARTS:
        return (Parts(bytes(data)),), {}  # read item by item, while user code runs
    decoded = _decode_with(resolve, codec, data)
    return decoded if codec & KWARGS else (decoded, {})


def encode_function(fn: Callable[..., Any], collector: Collector) -> bytes:
    """A function, by reference if workers can import it, else by value. Shared objects in it go to the collector.

    Raises:
        SerializationError: it cannot be pickled.
    """
    outer = _state.collector
    _state.collector = collector
    try:
        codec, parts = encode(fn, _Pickler)  # its classes share its globals
        if codec == PICKLE:
            return bytes(parts[0])
        return _dumps_by_value(fn)  # a function with large arrays in its closure: keep them inside
    except Exception as error:
        raise SerializationError(
            f"function {name_of(fn)} cannot be sent to workers: {type(error).__name__}: {error}; "
            "what it uses from outside must be picklable too"
        ) from error
    finally:
        _state.collector = outer


def decode_function(codec: int, data: Bytes, resolve: Callable[[int], Any]) -> Callable[..., Any]:
    """The function; `resolve` gives dependency i of the call for which it is decoded, -1 being the last."""
    fn: Callable[..., Any] = _decode_with(resolve, codec, data)
    return fn


class RemoteTraceback(Exception):  # noqa: N818 - shown as the cause of a task's exception, like the standard library's
    """The traceback of a task's exception as text: where the function failed, on its worker."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def encode_exception(error: BaseException, skip_frames: int = 1) -> bytes:
    """An exception with its traceback as text; where pickling fails, a TaskError that quotes it.

    One that would end a program becomes a TaskExit.

    It stays as it is: another thread may be raising it.
    """
    frames = error.__traceback__
    for _ in range(skip_frames):
        frames = frames.tb_next if frames is not None else None
    text = "".join(traceback.format_exception(type(error), error, frames))
    error = as_failure(error)
    try:
        data = b"".join(bytes(part) for part in encode_parts((error, text)))
        pickle.loads(data)
    except Exception as failure:  # noqa: BLE001 - user classes can fail in any way
        quoted = TaskError(
            f"{type(error).__qualname__}: {error} (the exception itself cannot be pickled: "
            f"{type(failure).__name__}: {failure})"
        )
        data = pickle.dumps((quoted, text), 5)
    return data


def encode_parts(obj: Any) -> list[Bytes]:
    """A pickle in one piece, buffers inside."""
    try:
        data = pickle.dumps(obj, 5)
        if b"__main__" not in data:
            return [data]
    except Exception:  # noqa: BLE001
        pass
    return [_dumps_by_value(obj)]


def decode_exception(data: Bytes, task: str = "the task") -> BaseException:
    """The exception of `task`, with the remote traceback as its cause."""
    try:
        error, text = pickle.loads(data)
    except (Exception, SystemExit) as failure:  # noqa: BLE001
        return TaskError(
            f"{task} failed, and its exception cannot be unpickled here: {type(failure).__name__}: {failure}"
        )
    if error.__cause__ is None:
        error.__cause__ = RemoteTraceback(text)
    result: BaseException = error
    return result
