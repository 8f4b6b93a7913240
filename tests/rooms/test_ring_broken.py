"""What a broken or dead other side may leave behind in a ring: counters and pieces that cannot be."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import OK, SHRINKING_TAKES_LONG, Memory, same_every_time
from rings import AGAIN, BROKEN, DATA_AT, FIRST, LAST, PAD, WORD, Ring, pad8, record

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG


@pytest.mark.parametrize("by", [256 + 8, 2**32, 2**63, -8, -256, 4, 1])
def test_an_impossible_written_counter_is_garbage(ring: Ring, by: int) -> None:
    for i in range(9):  # the consumer's position is neither at the start nor at the end
        assert ring.put(record(56, i)) == (OK, 56)
        ring.publish()
        assert ring.take() == record(56, i)
        ring.release()
    ring.set_written(ring.written + by)
    assert ring.check() == BROKEN
    assert ring.take() == BROKEN
    assert ring.check() == BROKEN


def test_an_impossible_written_counter_stays_garbage_when_it_is_asked_again(ring: Ring) -> None:
    for i in range(4):
        assert ring.put(record(56, i)) == (OK, 56)
        ring.publish()
        assert ring.take() == record(56, i)
        ring.release()
    ring.set_written(ring.written + 256 + 8)
    assert [ring.take() for _ in range(3)] == [BROKEN] * 3


def fill(ring: Ring) -> bytes:
    """Fills the ring after some turns; what is in its memory then."""
    for i in range(9):
        assert ring.put(record(40, i)) == (OK, 40)
        if i < 4:
            ring.publish()
            assert ring.take() == record(40, i)
            ring.release()
    ring.publish()
    return ffi.buffer(ring.base + DATA_AT, 256)[:]


@pytest.mark.parametrize("by", [8, 256, 2**32, 2**63, -264, -(2**40)])
def test_an_impossible_read_counter_is_no_space(ring: Ring, by: int) -> None:
    """It says that more was read than written, or less than what has been overwritten."""
    before = fill(ring)
    ring.set_read(ring.written + by)
    assert ring.check() == BROKEN
    assert ring.put(record(24, 9)) == (AGAIN, 0)
    assert ffi.buffer(ring.base + DATA_AT, 256)[:] == before
    ring.check_guards()


@pytest.mark.parametrize("size", [24, 64, 65, 600])
def test_an_impossible_read_counter_is_still_no_space_when_it_is_asked_again(ring: Ring, size: int) -> None:
    before = fill(ring)
    for by in [8, -264]:
        ring.set_read(ring.written + by)
        for _ in range(3):
            assert ring.put(record(size, 9)) == (AGAIN, 0), "put over records that nobody has read"
            assert ffi.buffer(ring.base + DATA_AT, 256)[:] == before


@pytest.mark.parametrize("by", [8, 256, 2**32, 2**63, -264, -(2**40)])
def test_an_impossible_read_counter_never_leads_out_of_the_ring(ring: Ring, by: int) -> None:
    fill(ring)
    ring.set_read(ring.written + by)
    for size in [24, 64, 65, 600, 24, 5000]:
        assert ring.put(record(size, 9))[0] in (OK, AGAIN)
        ring.publish()
        ring.check_guards()


def piece(size: int, flags: int, data: bytes = b"") -> bytes:
    return struct.pack("<II", size, flags) + data + bytes(pad8(len(data)) - len(data))


HUNDRED = struct.pack("<Q", 100)


OPENING = piece(16, FIRST, HUNDRED + bytes(8))
BROKEN_PIECES = {
    "no flags outside a record": piece(24, 0, bytes(24)),
    "an end without a beginning": piece(24, LAST, bytes(24)),
    "one byte more than is there": piece(25, FIRST | LAST, bytes(24)),
    "a word more than is there": piece(32, FIRST | LAST, bytes(24)),
    "larger than all rings": piece(2**32 - 1, FIRST | LAST, bytes(24)),
    "filler larger than all rings": piece(2**32 - 8, PAD, bytes(24)),
    "filler larger than what is there": piece(1, PAD),
    "a beginning without a size": piece(4, FIRST, bytes(8)),
    "a beginning that should be all": piece(16, FIRST, struct.pack("<Q", 16) + bytes(8)),
    "a record of no bytes": piece(16, FIRST, struct.pack("<Q", 0) + bytes(8)),
    "a record of half the world": piece(16, FIRST, struct.pack("<Q", WORD // 2) + bytes(8)),
    "a record of all the world": piece(16, FIRST, struct.pack("<Q", WORD - 1) + bytes(8)),
    "a beginning within a record": OPENING + piece(16, FIRST, HUNDRED + bytes(8)),
    "a whole record within a record": OPENING + piece(16, FIRST | LAST, HUNDRED + bytes(8)),
    "an end too early": OPENING + piece(80, LAST, bytes(80)),
    "an end too late": OPENING + piece(88, LAST, bytes(88)),
    "no end where it should be": OPENING + piece(84, 0, bytes(84)),
}


@pytest.mark.parametrize("raw", BROKEN_PIECES.values(), ids=BROKEN_PIECES)
def test_a_broken_piece_is_garbage(ring: Ring, raw: bytes) -> None:
    ring.poke(0, raw)
    ring.set_written(len(raw))
    assert lib.mt_ring_check(ring.consumer) == OK, "the counters are fine"
    assert ring.take() == BROKEN


def test_a_piece_across_the_end_of_the_ring_is_garbage(ring: Ring) -> None:
    assert ring.put(record(64, 1)) == (OK, 64)
    for size in [64, 64]:
        assert ring.put(record(size, 1)) == (OK, size)
    ring.publish()
    assert [ring.take() for _ in range(3)] == [record(64, 1)] * 3
    ring.release()
    ring.poke(216, piece(40, FIRST | LAST))
    ring.set_written(216 + 48)
    assert ring.check() == OK
    assert ring.take() == BROKEN


def test_pieces_made_by_hand_as_the_format_says_are_understood(ring: Ring) -> None:
    head = piece(8, PAD, bytes(8)) + piece(0, PAD) + piece(16, FIRST, struct.pack("<Q", 50) + b"a" * 8)
    tail = piece(24, 0, b"b" * 24) + piece(4, PAD, bytes(4)) + piece(10, LAST, b"c" * 10)
    ring.poke(0, head)
    ring.set_written(len(head))
    assert ring.take() == AGAIN
    ring.poke(len(head), tail)
    ring.set_written(len(head + tail))
    assert ring.take() == struct.pack("<Q", 50) + b"a" * 8 + b"b" * 24 + b"c" * 10
    assert ring.take() == AGAIN
    ring.release()
    assert ring.read == len(head + tail)


# Heads of pieces, each with the claimed size of a record behind it. Claims are small or impossible: none could make the
# joiner ask for gigabytes in earnest.
heads = st.tuples(
    st.sampled_from([0, 8, 8, 15, 16, 24, 56, 64, 2**32 - 1]), st.sampled_from([*range(8), 3, 3, FIRST, 11])
)
claims = st.tuples(st.sampled_from([0, 16, 24, 30, 40, 300]), st.sampled_from([0, 0, 0, 2**32 - 1]))
noise = st.lists(st.tuples(heads, claims), max_size=16)
counters = st.one_of(
    st.integers(0, 40).map(lambda n: 8 * n), st.sampled_from([1, 100, 2**32, 2**63, WORD - 8, WORD - 1])
)


@same_every_time(150)
@given(noise, counters)
def test_a_consumer_of_noise_ends_with_a_status(pieces: list[tuple[tuple[int, int], ...]], written: int) -> None:
    memory = Memory()
    ring = Ring(256, memory)
    ring.poke(0, b"".join(struct.pack("<IIII", *head, *claim) for head, claim in pieces))
    ring.set_written(written)
    for _ in range(40):
        status, data, size = ring.get()
        assert status in (OK, AGAIN, BROKEN)
        if status != OK:
            break
        assert len(ffi.buffer(data, size)[:]) == size
        assert ring.is_inside(data, size) or memory.live == 3
    assert status == BROKEN or (status == AGAIN and written <= 256)
    ring.close()
    assert memory.live == 0
    memory.close()
