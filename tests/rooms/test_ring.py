"""The ring of records against a list; streaming, wrap-around; no memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing, same_every_time
from rings import AGAIN, INVALID, PIECE_HEAD, WORD, Ring, pad8, record

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG


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
