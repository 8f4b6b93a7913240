"""Values that take the place of ellipses among marshalled arguments, against marshal itself."""

from __future__ import annotations

import marshal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import exact, same_every_time

from mpitask.native import ffi, lib

VERSION = 2
HUGE = 1 << 700
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-HUGE, HUGE),
    st.integers(-(1 << 33), 1 << 33),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from([".", "..", b".", "(", "\ud800", 0x2E, -0x2E2E2E2E, 1 << 15, -(1 << 15)]),
)


def fill(args: bytes, values: list[bytes], capacity: int = 1 << 16) -> bytes | int:
    """What the core makes of these, or its status."""
    pointers = [exact(raw) for raw in [args, *values]]
    parts = ffi.new("mt_part[]", [(pointer, len(pointer)) for pointer in pointers])
    out = ffi.new(f"uint8_t[{capacity}]")
    size = lib.mt_flat_fill(parts, parts + 1, len(values), out, capacity)
    return bytes(ffi.buffer(out, size)) if size >= 0 else int(size)


def dumps(value: Any) -> bytes:
    return marshal.dumps(value, VERSION)


@same_every_time(400)
@given(st.lists(st.tuples(st.booleans(), SCALARS), max_size=12))
def test_as_if_the_values_had_been_there(items: list[tuple[bool, Any]]) -> None:
    args = dumps(tuple(... if is_edge else value for is_edge, value in items))
    values = [dumps(value) for is_edge, value in items if is_edge]
    wanted = dumps(tuple(value for _, value in items))
    assert fill(args, values) == wanted
    assert fill(args, values, len(wanted)) == wanted
    assert fill(args, values, len(wanted) - 1) == lib.MT_E_AGAIN


@same_every_time(200)
@given(st.lists(SCALARS | st.just(...), max_size=6), st.data())
def test_bytes_that_end_too_early(items: list[Any], data: st.DataObject) -> None:
    args = dumps(tuple(items))
    values = [dumps(1)] * items.count(...)
    assert fill(args[: data.draw(st.integers(0, len(args) - 1))], values) == lib.MT_E_RECORD
    assert fill(args + b"N", values) == lib.MT_E_RECORD


@same_every_time(400)
@given(st.binary(max_size=60), st.integers(0, 3))
def test_any_bytes(raw: bytes, n: int) -> None:
    for args in (raw, dumps((1, ..., "x"))[:5] + raw):
        result = fill(args, [b"N"] * n, 64)
        assert isinstance(result, bytes) or result in (lib.MT_E_AGAIN, lib.MT_E_RECORD)


@pytest.mark.parametrize("values", [[], [b"N"], [b"N"] * 3], ids=len)
def test_not_a_value_for_each_ellipsis(values: list[bytes]) -> None:
    assert fill(dumps((..., 1, ...)), values) == lib.MT_E_RECORD


@pytest.mark.parametrize("args", [[...], 7, (1, (..., 2)), ({}, ...), ([], ...)], ids=repr)
def test_what_is_no_tuple_of_scalars(args: Any) -> None:
    assert fill(dumps(args), [b"N"]) == lib.MT_E_RECORD
    assert fill(marshal.dumps((1, ...), 4), [b"N"]) == lib.MT_E_RECORD
