"""The ring of records with Python's types, for its tests."""

from __future__ import annotations

import struct
from functools import partial
from itertools import pairwise
from typing import Any

from memory import OK, Memory

from mpitask.native import ffi, lib

AGAIN, BROKEN, INVALID = lib.MT_E_AGAIN, lib.MT_E_RECORD, lib.MT_E_INVAL
FIRST, LAST, PAD = lib.MT_PIECE_FIRST, lib.MT_PIECE_LAST, lib.MT_PIECE_PAD
PIECE_HEAD = 8
GUARD = b"\xa5" * 64
WORD = 1 << 64
# Of the shared memory: each counter on a line of its own, then the bytes.
WRITTEN_AT, READ_AT, DATA_AT = 0, 64, 128


def pad8(size: int) -> int:
    return (size + 7) // 8 * 8


def record(size: int, number: int) -> bytes:
    """A record of `size` bytes that can be told from all others and whose every byte matters."""
    body = bytes((number * 31 + i * 7) % 251 for i in range(size - 8))
    return struct.pack("<Q", size) + body


def parts_of(data: bytes, *cuts: int) -> tuple[Any, list[Any]]:
    """`data` in parts that end at `cuts`; the second item keeps their memory alive."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    keep = [ffi.new(f"unsigned char[{max(1, b - a)}]", data[a:b]) for a, b in pairwise(edges)]
    rows = [(k, b - a) for k, (a, b) in zip(keep, pairwise(edges), strict=True)]
    return ffi.new("mt_part[]", rows), keep


class Ring:
    """A formatted ring with both of its sides, and guards around its memory."""

    def __init__(self, capacity: int, memory: Memory) -> None:
        self.capacity = capacity
        self.memory = memory
        self.footprint = int(lib.mt_ring_footprint(capacity))
        self._block = ffi.new(f"unsigned char[{self.footprint + 3 * 64}]", GUARD + bytes(self.footprint) + 2 * GUARD)
        shift = -int(ffi.cast("uintptr_t", self._block)) % 64
        ffi.buffer(self._block)[:] = GUARD[:shift] + GUARD + bytes(self.footprint) + GUARD + GUARD[shift:]
        self.base = self._block + shift + 64
        lib.mt_ring_format(self.base, capacity)
        self.producer = memory.attempt(partial(lib.mt_ring_open, memory.alloc, self.base, capacity))
        self.consumer = memory.attempt(partial(lib.mt_ring_open, memory.alloc, self.base, capacity))

    def close(self) -> None:
        self.check_guards()
        lib.mt_ring_close(self.producer)
        lib.mt_ring_close(self.consumer)

    def check_guards(self) -> None:
        assert ffi.buffer(self.base - 64, 64)[:] == GUARD
        assert ffi.buffer(self.base + self.footprint, 64)[:] == GUARD

    def check(self) -> int:
        self.check_guards()
        status = int(lib.mt_ring_check(self.producer))
        return status if status != OK else int(lib.mt_ring_check(self.consumer))

    def counter(self, at: int) -> Any:
        return ffi.cast("uint64_t *", self.base + at)

    @property
    def written(self) -> int:
        return int(self.counter(WRITTEN_AT)[0])

    @property
    def read(self) -> int:
        return int(self.counter(READ_AT)[0])

    def set_written(self, value: int) -> None:
        self.counter(WRITTEN_AT)[0] = value % WORD

    def set_read(self, value: int) -> None:
        self.counter(READ_AT)[0] = value % WORD

    def poke(self, at: int, data: bytes) -> None:
        ffi.memmove(self.base + DATA_AT + at, data, len(data))

    def put(self, data: bytes, progress: int = 0, cuts: tuple[int, ...] = ()) -> tuple[int, int]:
        """The status and the new progress."""
        parts, keep = parts_of(data, *cuts)
        at = ffi.new("uint64_t *", progress)
        status = lib.mt_ring_put(self.producer, parts, len(keep), at)
        return int(status), int(at[0])

    def publish(self) -> bool:
        return bool(lib.mt_ring_publish(self.producer))

    def get(self) -> tuple[int, Any, int]:
        """The status, where the bytes are and how many; outputs of a failed call must be untouched."""
        data, size = ffi.new("void **", ffi.cast("void *", 13)), ffi.new("uint64_t *", 13)
        status = lib.mt_ring_get(self.consumer, ffi.cast("const void **", data), size)
        if status != OK:
            assert (int(ffi.cast("uintptr_t", data[0])), size[0]) == (13, 13)
        return int(status), data[0], int(size[0])

    def take(self) -> bytes | int:
        """The next record's bytes, or the status."""
        status, data, size = self.get()
        return ffi.buffer(data, size)[:] if status == OK else status

    def release(self) -> None:
        lib.mt_ring_release(self.consumer)

    def has_data(self) -> bool:
        return bool(lib.mt_ring_has_data(self.consumer))

    def is_inside(self, data: Any, size: int) -> bool:
        """Whether bytes lie in the ring's own memory."""
        offset = int(ffi.cast("uintptr_t", data)) - int(ffi.cast("uintptr_t", self.base + DATA_AT))
        return offset >= 0 and offset + size <= self.capacity
