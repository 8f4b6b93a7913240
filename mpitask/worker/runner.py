"""The loop that runs tasks: in a worker process, or in a thread of the rank (an inline worker).

It relies on the C side for waiting, objects and the order of records; here is only what needs Python: unpickle, call,
pickle.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable
from typing import Any

from mpitask import codec
from mpitask.native import check, ffi, lib

_KIND_TASK = lib.MT_KIND_TASK
_KIND_STOP = lib.MT_KIND_STOP
_KIND_DROP = lib.MT_KIND_DROP
_OK = lib.MT_OUTCOME_OK
_ERROR = lib.MT_OUTCOME_ERROR


_SHARED, _MAPPED = codec.SHARED, codec.MAPPED


def _map(edge: Any, *, is_private: bool) -> Any:
    """The bytes that a worker maps, as a buffer; they stay as long as something made of it does.

    Raises:
        OSError: they cannot be mapped.
    """
    mapping = lib.mt_mapping_open(edge.args, edge.args_size, is_private)
    if not mapping:
        raise OSError(ffi.errno, f"a value cannot be mapped: {os.strerror(ffi.errno)}")
    data = ffi.gc(mapping.data, lambda _, close=lib.mt_mapping_close: close(mapping))
    return ffi.buffer(data, mapping.size)


def _hold(worker: Any, edge: Any) -> Any:
    """The bytes of an object that this process holds; the same."""
    blob = lib.mt_worker_hold(worker, edge.id)
    data = ffi.gc(edge.args, lambda _, unref=lib.mt_blob_unref: unref(blob))
    return ffi.buffer(data, edge.args_size)


class Runner:
    """Runs the tasks of one link, in one thread."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._call = ffi.new("mt_call *")
        self._edge = ffi.new("mt_call *")
        self._functions: dict[int, Callable[..., Any]] = {}
        self._shared: dict[int, Any] = {}

    def run(self) -> None:
        """Runs tasks until the engine says stop. Says HELLO first."""
        check(lib.mt_worker_hello(self._worker), "greeting the engine")
        worker, call, functions = self._worker, self._call, self._functions
        next_record, answer = lib.mt_worker_next, lib.mt_worker_answer
        args: Any = None
        kwargs: Any = None
        buffer, loads, dumps, scalars = ffi.buffer, marshal.loads, marshal.dumps, codec.SCALARS
        while True:
            kind = next_record(worker, -1, call)
            if kind == _KIND_TASK:
                try:
                    fn = functions.get(call.fn)
                    if fn is None:
                        fn = self._load(call)
                    if call.codec == codec.MARSHAL:
                        value = fn(*loads(buffer(call.args, call.args_size)))
                    else:
                        args, kwargs = self._arguments(call)
                        value = fn(*args, **kwargs)
                        args = kwargs = None
                    if type(value) in scalars:
                        data = dumps(value, 2)
                        status = answer(worker, _OK, codec.MARSHAL, data, len(data))
                    else:
                        status = self._answer(value)
                    value = None
                except BaseException as error:  # noqa: BLE001 - whatever a task raises is its result
                    data = codec.encode_exception(error)
                    status = answer(worker, _ERROR, codec.PICKLE, data, len(data))
                    value = args = kwargs = None
                if status < 0:
                    check(status, "sending a result")
            elif kind == _KIND_STOP:
                return
            elif kind == _KIND_DROP:
                functions.pop(call.id, None)
                self._shared.pop(call.id, None)
            elif kind != lib.MT_E_INTR:
                check(kind, "waiting for tasks")

    def _load(self, call: Any) -> Callable[..., Any]:
        edge = self._edge
        check(lib.mt_worker_object(self._worker, call.fn, edge), "looking up a function")
        data = _map(edge, is_private=False) if edge.codec & _MAPPED else ffi.buffer(edge.args, edge.args_size)
        fn = codec.decode_function(edge.codec, data, self._resolver(call))
        self._functions[call.fn] = fn
        return fn

    def _arguments(self, call: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return codec.decode_call(call.codec, ffi.buffer(call.args, call.args_size), self._resolver(call))

    def _resolver(self, call: Any) -> Callable[[int], Any]:
        """Gives the value of dependency i of a call; -1 is the last."""
        values: dict[int, Any] = {}

        def resolve(index: int) -> Any:
            if index not in values:
                edge = self._edge
                check(lib.mt_worker_edge(self._worker, index % call.n, edge), "looking up an argument")
                if edge.codec & _SHARED:
                    values[index] = self._decode_shared(edge)
                elif edge.codec & _MAPPED:
                    values[index] = codec.decode(edge.codec, _map(edge, is_private=True), borrow=True)
                else:
                    values[index] = codec.decode(edge.codec, ffi.buffer(edge.args, edge.args_size))
            return values[index]

        return resolve

    def _decode_shared(self, edge: Any) -> Any:
        """The object behind a shared value, decoded at its first use; its arrays are views of what is there."""
        number = edge.id
        if number not in self._shared:
            kind = edge.codec
            data = _map(edge, is_private=False) if kind & _MAPPED else _hold(self._worker, edge)
            self._shared[number] = codec.decode(kind, memoryview(data).toreadonly(), borrow=True)
        return self._shared[number]

    def _answer(self, value: Any) -> int:
        kind, parts = codec.encode(value)
        c_parts = ffi.new("mt_part[]", len(parts))
        keep = []
        for i, part in enumerate(parts):
            pointer = ffi.from_buffer(part)
            keep.append(pointer)
            c_parts[i].data = pointer
            c_parts[i].size = len(pointer)
        status: int = lib.mt_worker_answer_parts(self._worker, _OK, kind, c_parts, len(parts))
        return status
