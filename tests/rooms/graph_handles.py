"""Tasks and the graph with Python's types, for their tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from memory import OK, Memory

from mpitask.native import ffi, lib

WAITING, READY, ASSIGNED = lib.MT_WAITING, lib.MT_READY, lib.MT_ASSIGNED
DONE, FAILED, CANCELLED = lib.MT_DONE, lib.MT_FAILED, lib.MT_CANCELLED
DEPENDENCY_FAILED = lib.MT_DEPENDENCY_FAILED
SUCCESS, ERROR, LOST = lib.MT_OUTCOME_OK, lib.MT_OUTCOME_ERROR, lib.MT_OUTCOME_LOST
DROPPED = lib.MT_OUTCOME_CANCELLED
# Flags that waiting threads set above the state (task.h; not in lib).
WAITED, NOTIFY = 256, 512
# Arguments beyond this size are kept apart from the task (task.c).
INLINE_ARGS = 1024


def new_task(alloc: Any, number: int, edges: Sequence[Any] = (), *, fn: int = 1, args: bytes = b"") -> Any:
    """NULL when there is no memory."""
    keep = ffi.new("mt_task *[]", list(edges))
    part = ffi.new("mt_part *", {"data": ffi.from_buffer(args), "size": len(args)})
    spec = {"number": number, "fn": fn, "n_edges": len(edges), "edges": keep, "n_args": 1, "args": part}
    return lib.mt_task_new(alloc, ffi.new("mt_task_spec *", spec))


@dataclass(frozen=True)
class Value:
    """What is to be known of how a task ended."""

    data: bytes = b""
    codec: int = 0
    outcome: int = SUCCESS
    cause: int = 0
    via: int = 0


NEVER_RUN = Value(outcome=DROPPED)


def value_of(task: Any) -> Value | None:
    value = lib.mt_task_value(task)
    if value == ffi.NULL:
        return None
    data = ffi.buffer(value.data, value.size)[:] if value.size else b""
    return Value(data, value.codec, value.outcome, value.cause, value.via)


def wait_for(task: Any, flag: int) -> None:
    """What a waiting thread does: the state word is the first of a task."""
    ffi.cast("uint32_t *", task)[0] |= flag


class Graph:
    """The graph, with Python's types."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.handle = memory.attempt(partial(lib.mt_graph_new, memory.alloc))

    def check(self) -> int:
        return int(lib.mt_graph_check(self.handle))

    def counts(self) -> dict[str, int]:
        counts = lib.mt_graph_count(self.handle)
        return {name: getattr(counts, name) for name, _ in ffi.typeof(counts).fields if getattr(counts, name)}

    def add(self, task: Any) -> None:
        """The caller keeps a reference."""
        lib.mt_task_ref(task)
        lib.mt_graph_add(self.handle, task)

    def new(self, number: int, edges: Sequence[Any] = (), *, fn: int = 1, args: bytes = b"") -> Any:
        """A task that is in the graph, with a reference for the caller."""
        task = new_task(self.memory.alloc, number, edges, fn=fn, args=args)
        assert task
        self.add(task)
        return task

    def take(self, n: int = 100) -> list[Any]:
        out = ffi.new("mt_task *[]", n + 1)
        got = lib.mt_graph_take_ready(self.handle, out, n)
        assert got <= n
        assert list(out[got : n + 1]) == [ffi.NULL] * (n + 1 - got)
        return list(out[0:got])

    def take_numbers(self, n: int = 100) -> list[int]:
        return [lib.mt_task_number(task) for task in self.take(n)]

    def assign(self, task: Any) -> bool:
        return bool(lib.mt_graph_assign(self.handle, task))

    def finish(
        self, task: Any, outcome: int = SUCCESS, data: bytes | None = b"", codec: int = 1, offset: int = 0
    ) -> None:
        blob = ffi.NULL
        if data is not None:
            part = ffi.new("mt_part *", {"data": ffi.from_buffer(data), "size": len(data)})
            blob = lib.mt_blob_from_parts(self.memory.alloc, part, 1)
            assert blob
        lib.mt_graph_finish(self.handle, task, outcome, codec, blob, offset)
        lib.mt_blob_unref(blob)

    def run(self, task: Any, outcome: int = SUCCESS, data: bytes = b"") -> None:
        """Takes the only ready task and ends it."""
        assert self.take() == [task]
        assert self.assign(task)
        self.finish(task, outcome, data)

    def cancel(self, task: Any) -> bool:
        if not lib.mt_task_try_cancel(task):
            return False
        lib.mt_graph_cancelled(self.handle, task)
        return True

    def take_ended(self) -> list[tuple[int, int]]:
        """Number and flags of all that ended."""
        flags = ffi.new("uint32_t *")
        ended = []
        while (task := lib.mt_graph_take_ended(self.handle, flags)) != ffi.NULL:
            ended.append((lib.mt_task_number(task), flags[0]))
            lib.mt_task_unref(task)
        return ended

    def destroy(self) -> None:
        lib.mt_graph_abandon(self.handle)
        assert self.check() == OK
        lib.mt_graph_destroy(self.handle)
