"""The simulator's allocator: pieces keep their bytes, whatever sizes come and go."""

from __future__ import annotations

import random
from typing import Any

from mpitask.native import ffi, lib

HEAD = 32
"""Of a blob, before its bytes."""


def make(arena: Any, data: bytes) -> Any:
    part = ffi.new("mt_part *", {"data": ffi.from_buffer(data), "size": len(data)})
    blob = lib.mt_blob_from_parts(arena, part, 1)
    assert blob
    return blob


def test_pieces_keep_their_bytes() -> None:
    rng = random.Random(1)
    arena = lib.mt_arena_new()
    held: list[tuple[Any, bytes]] = []
    for i in range(20_000):
        if held and rng.random() < 0.45:
            blob, data = held.pop(rng.randrange(len(held)))
            assert ffi.buffer(ffi.cast("char *", blob) + HEAD, len(data))[:] == data
            lib.mt_blob_unref(blob)
        size = rng.choice([0, 1, 7, 16, 200, 209, 300, 5000, 16_000, 17_000, 70_000][: 9 if i % 50 else 11])
        data = rng.randbytes(1) * size
        blob = make(arena, data)
        assert int(ffi.cast("uintptr_t", blob)) % 16 == 0
        held.append((blob, data))
    for blob, data in held:
        assert ffi.buffer(ffi.cast("char *", blob) + HEAD, len(data))[:] == data
        lib.mt_blob_unref(blob)
    lib.mt_arena_destroy(arena)
