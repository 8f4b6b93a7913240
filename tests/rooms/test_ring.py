"""The ring of records against a list; streaming, wrap-around, broken counters and pieces; no memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing, same_every_time

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG

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


class RingAgainstList(RuleBasedStateMachine):
    """The oracle: which records are in, which of them are visible, and the space that a one-piece record needs."""

    @initialize(capacity=st.sampled_from([256, 512, 1024]))
    def start(self, capacity: int) -> None:
        self.memory = Memory()
        self.ring = Ring(capacity, self.memory)
        self.hidden: list[bytes] = []
        self.visible: list[bytes] = []
        self.number = 0
        self.position = 0  # of the producer; not followed while a record streams
        self.streaming: tuple[bytes, int, tuple[int, ...]] | None = None
        self.news: bool | None = False  # what the next publish will say; None: either
        self.held: tuple[Any, int, bytes] | None = None
        self.seen: int | None = 0  # the consumer's position when that is certain

    def _put_whole(self, data: bytes, cuts: tuple[int, ...]) -> None:
        ring = self.ring
        rest = ring.capacity - self.position % ring.capacity
        need = PIECE_HEAD + pad8(len(data))
        if rest < need:
            need += rest
        fits = self.position - ring.read + need <= ring.capacity
        assert ring.put(data, 0, cuts) == ((OK, len(data)) if fits else (AGAIN, 0))
        if fits:
            self.position += need
            self.hidden.append(data)
            self.news = True

    def _stream(self, data: bytes, progress: int, cuts: tuple[int, ...]) -> None:
        ring = self.ring
        status, after = ring.put(data, progress, cuts)
        assert progress <= after <= len(data)
        assert status == (OK if after == len(data) else AGAIN)
        assert ring.read < ring.written or after > progress, "there was nothing in the ring, and nothing went in"
        if after > progress:
            self.news = True
            self.visible += self.hidden
            self.hidden = []
        elif not self.news:
            self.news = None  # there may be a filler
        if status == OK:
            self.visible.append(data)
            self.streaming = None
            self.position = ring.written
        else:
            self.streaming = (data, after, cuts)

    @rule(
        quarters=st.sampled_from([0, 0, 0, 0.3, 1, 1, 2, 5, 17]),
        more=st.integers(-20, 20),
        cuts=st.lists(st.integers(0, 5000), max_size=3).map(tuple),
    )
    def put(self, quarters: float, more: int, cuts: tuple[int, ...]) -> None:
        if self.streaming is not None:
            self._stream(*self.streaming)
            return
        self.number += 1
        data = record(max(8, round(quarters * self.ring.capacity / 4) + more), self.number)
        if len(data) <= self.ring.capacity // 4:
            self._put_whole(data, cuts)
        else:
            self._stream(data, 0, cuts)

    @rule()
    def publish(self) -> None:
        said = self.ring.publish()
        assert self.news is None or said == self.news
        self.news = False
        self.visible += self.hidden
        self.hidden = []

    @rule(times=st.integers(1, 5), release=st.booleans())
    def get(self, times: int, release: bool) -> None:
        for _ in range(times):
            self.held = None
            status, data, size = self.ring.get()
            if not self.visible:
                assert status == AGAIN
                self.seen = self.ring.written
            else:
                assert status == OK
                expected = self.visible.pop(0)
                assert size == len(expected)
                assert self.ring.is_inside(data, size) == (size <= self.ring.capacity // 4)
                self.held = (data, size, expected)
                self.check_held()
                self.seen = None
            if release:
                self.release()

    @rule()
    def release(self) -> None:
        self.held = None
        self.ring.release()
        if self.seen is not None:
            assert self.ring.read == self.seen

    @invariant()
    def check_held(self) -> None:
        """What was got last stays as it is, whatever the producer puts."""
        if self.held is not None:
            data, size, expected = self.held
            assert ffi.buffer(data, size)[:] == expected

    @invariant()
    def check_all(self) -> None:
        ring = self.ring
        assert ring.check() == OK
        assert ring.read <= ring.written <= ring.read + ring.capacity
        assert ring.read % 8 == ring.written % 8 == 0
        if self.visible:
            assert ring.has_data()
        if self.seen is not None:
            assert ring.has_data() == (ring.written != self.seen)

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.ring.close()
            assert self.memory.live == 0
            self.memory.close()


TestRingAgainstList = RingAgainstList.TestCase
TestRingAgainstList.settings = same_every_time(60, steps=40)


@pytest.fixture
def ring() -> Iterator[Ring]:
    memory = Memory()
    ring = Ring(256, memory)
    yield ring
    ring.close()
    assert memory.live == 0
    memory.close()


def test_only_powers_of_two_from_256_to_2_30_are_capacities() -> None:
    for bits in range(64):
        inside = 8 <= bits <= 30
        assert (lib.mt_ring_footprint(1 << bits) > 1 << bits) == inside
        assert (lib.mt_ring_footprint(1 << bits) == 0) == (not inside)
        assert bits == 0 or lib.mt_ring_footprint((1 << bits) + 1) == 0
    assert lib.mt_ring_footprint(0) == lib.mt_ring_footprint(768) == lib.mt_ring_footprint(WORD - 1) == 0


def test_an_empty_ring_has_nothing_and_no_news(ring: Ring) -> None:
    assert not ring.has_data()
    assert ring.take() == AGAIN
    assert not ring.publish()
    ring.release()
    assert ring.take() == AGAIN
    assert ring.check() == OK


def test_what_is_put_is_seen_only_after_publish(ring: Ring) -> None:
    assert ring.put(record(24, 1)) == (OK, 24)
    assert (ring.has_data(), ring.take()) == (False, AGAIN)
    assert ring.publish()
    assert not ring.publish()
    assert ring.has_data()
    assert ring.take() == record(24, 1)
    assert not ring.has_data()


def test_a_record_too_short_for_its_size_or_a_progress_beyond_it_is_invalid(ring: Ring) -> None:
    for size in range(8):
        assert ring.put(bytes(size)) == (INVALID, 0)
    assert ring.put(record(24, 1), 25) == (INVALID, 25)
    assert ring.put(record(1000, 1), 1001) == (INVALID, 1001)
    assert not ring.publish()
    assert ring.put(record(8, 1)) == (OK, 8)
    ring.publish()
    assert ring.take() == record(8, 1)


def test_a_full_ring_takes_nothing_until_space_is_given_back(ring: Ring) -> None:
    put = 0
    while (answer := ring.put(record(24, put))) == (OK, 24):
        put += 1
    assert answer == (AGAIN, 0)
    assert put == 256 // (PIECE_HEAD + 24)
    ring.publish()
    assert ring.written - ring.read == 256, "filled to the last byte"
    assert ring.take() == record(24, 0)
    assert ring.put(record(24, put)) == (AGAIN, 0), "a record that is being read is still there"
    ring.release()
    assert ring.put(record(24, put)) == (OK, 24)
    assert ring.put(record(24, put + 1)) == (AGAIN, 0)
    ring.publish()
    assert [ring.take() for _ in range(put)] == [record(24, i) for i in range(1, put + 1)]
    assert ring.take() == AGAIN
    assert ring.check() == OK


@pytest.mark.parametrize("shift", [1, 6, 9, 14])
def test_a_record_goes_in_exactly_when_its_place_is_free(shift: int) -> None:
    """With every amount of free space; one that does not fit before the end of the ring needs the rest there too."""
    memory = Memory()
    answers = set()
    for small in range(16):
        for size in range(8, 65, 8):
            ring = Ring(256, memory)
            for _ in range(shift):
                assert ring.put(record(8, 1)) == (OK, 8)
            ring.publish()
            assert [ring.take() for _ in range(shift)] == [record(8, 1)] * shift
            ring.release()
            for data in [record(16, 2)] * (small % 2) + [record(8, 2)] * small:
                ring.put(data)
            ring.publish()
            before = ring.written
            rest = 256 - before % 256
            need = PIECE_HEAD + size if rest >= PIECE_HEAD + size else rest + PIECE_HEAD + size
            fits = before + need <= ring.read + 256
            assert ring.put(record(size, 3)) == ((OK, size) if fits else (AGAIN, 0))
            assert ring.publish() == fits
            assert ring.written == before + (need if fits else 0)
            answers.add(ring.read + 256 - before - need)
            ring.close()
    assert {-8, 0} <= answers, "one word too little, and just enough"
    assert memory.live == 0
    memory.close()


@pytest.mark.parametrize("size", [8, 9, 17, 40, 41, 63, 64])
def test_records_of_any_size_survive_hundreds_of_turns(ring: Ring, size: int) -> None:
    for i in range(300):
        assert ring.put(record(size, i)) == (OK, size)
        assert ring.put(record(8, i)) == (OK, 8)
        ring.publish()
        assert ring.take() == record(size, i)
        assert ring.take() == record(8, i)
        ring.release()
        assert ring.check() == OK
    assert ring.written >= 300 * (2 * PIECE_HEAD + pad8(size) + 8) > 20 * 256


def test_a_quarter_of_the_ring_is_read_in_place_and_more_is_collected(ring: Ring) -> None:
    for size, in_place in [(64, True), (65, False), (72, False)]:
        assert ring.put(record(size, 1)) == (OK, size)
        ring.publish()
        status, data, got = ring.get()
        assert (status, got) == (OK, size)
        assert ring.is_inside(data, size) == in_place
        ring.release()


def test_a_record_many_times_the_ring_streams_through_between_small_ones(ring: Ring) -> None:
    large = record(256 * 20 + 3, 2)
    assert ring.put(record(24, 1)) == (OK, 24)
    status, progress = ring.put(large)
    turns = 0
    assert ring.take() == record(24, 1), "a streaming record shows what was put before it"
    while status == AGAIN:
        before = progress
        assert ring.take() == AGAIN
        assert not ring.has_data()
        status, progress = ring.put(large, progress, (1, 100, 5000))
        assert progress > before
        assert ring.check() == OK
        turns += 1
    assert (status, progress) == (OK, len(large))
    assert turns >= 18
    assert ring.put(record(16, 3)) == (OK, 16)
    ring.publish()
    assert ring.take() == large
    assert ring.take() == record(16, 3)
    assert ring.take() == AGAIN


def test_a_finished_streaming_record_is_in_once(ring: Ring) -> None:
    assert ring.put(record(100, 1)) == (OK, 100)
    assert ring.put(record(100, 1), 100) == (OK, 100), "nothing is left to put"
    ring.publish()
    assert ring.take() == record(100, 1)
    assert ring.take() == AGAIN


def test_when_the_producer_dies_in_the_middle_whole_records_still_come_out(ring: Ring) -> None:
    assert ring.put(record(24, 1)) == (OK, 24)
    assert ring.put(record(2000, 2))[0] == AGAIN
    lib.mt_ring_close(ring.producer)
    ring.producer = ffi.NULL
    assert ring.take() == record(24, 1)
    for _ in range(3):
        assert ring.take() == AGAIN
    assert lib.mt_ring_check(ring.consumer) == OK
    assert ring.memory.live == 2, "the handle and the part of the record that came"


def test_formatting_again_makes_a_used_ring_empty(ring: Ring) -> None:
    for i in range(5):
        assert ring.put(record(40, i)) == (OK, 40)
    ring.publish()
    lib.mt_ring_close(ring.producer)
    lib.mt_ring_close(ring.consumer)
    lib.mt_ring_format(ring.base, 256)
    ring.producer, ring.consumer = (lib.mt_ring_open(ring.memory.alloc, ring.base, 256) for _ in range(2))
    assert ring.check() == OK
    assert ring.take() == AGAIN
    assert ring.put(record(24, 9)) == (OK, 24)
    ring.publish()
    assert ring.take() == record(24, 9)


def test_closing_no_ring_does_nothing() -> None:
    lib.mt_ring_close(ffi.NULL)


# ---- what a broken or dead other side may leave behind ----


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


def test_without_memory_a_large_record_waits_and_comes_out_whole() -> None:
    def scenario(memory: Memory) -> None:
        ring = Ring(256, memory)
        data, size = ffi.new("void **", ffi.NULL), ffi.new("uint64_t *", 13)

        def unchanged() -> int:
            assert (data[0], size[0]) == (ffi.NULL, 13), "a call that failed has touched its output"
            assert ring.has_data()
            return ring.check()

        for number, length in enumerate([24, 65, 3000, 8, 300]):
            whole = record(length, number)
            status, progress = AGAIN, 0
            while status == AGAIN:
                status, progress = ring.put(whole, progress)
                ring.publish()
                data[0], size[0] = ffi.NULL, 13
                get = partial(lib.mt_ring_get, ring.consumer, ffi.cast("const void **", data), size)
                answer = memory.attempt(get, unchanged)
                assert answer == status
            assert ffi.buffer(data[0], size[0])[:] == whole
            ring.release()
            assert ring.check() == OK
        ring.close()

    assert each_allocation_failing(scenario) == 2 + 3
