"""The object table against a dictionary; ids that collide, lanes at word borders; no memory."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing, same_every_time

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG

STALE, INVALID = lib.MT_E_STALE, lib.MT_E_INVAL
FIRST_CAPACITY = 64
SENTINEL = 0xDEAD


class Objects:
    """The table, with Python's types."""

    def __init__(self, memory: Memory, max_lanes: int) -> None:
        self.memory = memory
        self.max_lanes = max_lanes
        self.handle = memory.attempt(partial(lib.mt_objects_new, memory.alloc, max_lanes))

    def destroy(self) -> None:
        lib.mt_objects_destroy(self.handle)

    def check(self) -> int:
        return int(lib.mt_objects_check(self.handle))

    def add(self, number: int, data: bytes, codec: int = 1) -> int:
        keep = ffi.from_buffer(data)
        part = ffi.new("mt_part *", {"data": keep, "size": len(data)})
        return int(lib.mt_objects_add(self.handle, number, part, codec))

    def ref(self, number: int) -> int:
        return int(lib.mt_objects_ref(self.handle, number))

    def unref(self, number: int) -> int | list[int]:
        """The lanes that have the object when it is gone, else the status."""
        lanes, n = ffi.new("uint32_t[]", [SENTINEL] * (self.max_lanes + 1)), ffi.new("uint32_t *", SENTINEL)
        status = int(lib.mt_objects_unref(self.handle, number, lanes, n))
        assert lanes[self.max_lanes] == SENTINEL
        if status != 1:
            assert (n[0], lanes[0]) == (SENTINEL, SENTINEL)
            return status
        return list(lanes[0 : n[0]])

    def get(self, number: int) -> int | tuple[bytes, int]:
        part, codec = ffi.new("mt_part *", {"size": SENTINEL}), ffi.new("uint32_t *", SENTINEL)
        status = int(lib.mt_objects_get(self.handle, number, part, codec))
        if status != OK:
            assert (part.size, codec[0]) == (SENTINEL, SENTINEL)
            return status
        assert int(ffi.cast("uintptr_t", part.data)) % 16 == 0
        return ffi.buffer(part.data, part.size)[:], int(codec[0])

    def where(self, number: int) -> int | bytes:
        """The bytes as another process reads them where they lie."""
        where = ffi.new("mt_where *", {"size": SENTINEL})
        status = int(lib.mt_objects_where(self.handle, number, where))
        if status != OK:
            assert where.size == SENTINEL
            return status
        mapping = lib.mt_mapping_open(where, ffi.sizeof("mt_where"), False)
        assert mapping, os.strerror(ffi.errno)
        found = ffi.buffer(mapping.data, mapping.size)[:]
        lib.mt_mapping_close(mapping)
        return found

    def mark(self, number: int, lane: int) -> int:
        return int(lib.mt_objects_mark(self.handle, number, lane))

    def forget_lane(self, lane: int) -> None:
        lib.mt_objects_forget_lane(self.handle, lane)

    @property
    def count(self) -> int:
        return int(lib.mt_objects_count(self.handle))

    @property
    def bytes(self) -> int:
        return int(lib.mt_objects_bytes(self.handle))


@dataclass
class Known:
    """What the oracle keeps of an object."""

    data: bytes
    codec: int
    refs: int = 1
    lanes: set[int] = field(default_factory=set)


# The place of an id comes from bits 20 and up of its product with a constant: ids that are multiples of 2^44 or more
# meet in few places, small ones spread.
numbers = st.one_of(st.integers(1, 60), st.integers(1, 30).map(lambda n: n << 58), st.integers(1, 2**64 - 1))


class ObjectsAgainstDict(RuleBasedStateMachine):
    """Everything that can be asked of every object, after every step."""

    @initialize(max_lanes=st.sampled_from([1, 7, 64, 65, 130]))
    def start(self, max_lanes: int) -> None:
        self.memory = Memory()
        self.objects = Objects(self.memory, max_lanes)
        self.known: dict[int, Known] = {}

    def pick(self, data: st.DataObject) -> int:
        """Mostly an id that is there."""
        if self.known and data.draw(st.integers(0, 7)) > 0:
            return data.draw(st.sampled_from(sorted(self.known)))
        return data.draw(numbers)

    @rule(new=st.lists(numbers, min_size=1, max_size=30), size=st.integers(0, 40), codec=st.integers(0, 19))
    def add(self, new: list[int], size: int, codec: int) -> None:
        for number in new:
            content = number.to_bytes(8, "little") * size
            expected = INVALID if number in self.known else OK
            assert self.objects.add(number, content, codec) == expected
            if expected == OK:
                self.known[number] = Known(content, codec)

    @rule(data=st.data())
    def ref(self, data: st.DataObject) -> None:
        number = self.pick(data)
        assert self.objects.ref(number) == (OK if number in self.known else STALE)
        if number in self.known:
            self.known[number].refs += 1

    @rule(data=st.data(), times=st.integers(1, 10))
    def unref(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            number = self.pick(data)
            known = self.known.get(number)
            if known is None:
                assert self.objects.unref(number) == STALE
                continue
            known.refs -= 1
            assert self.objects.unref(number) == (sorted(known.lanes) if known.refs == 0 else 0)
            if known.refs == 0:
                del self.known[number]

    @rule(data=st.data(), times=st.integers(1, 10))
    def mark(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            number, lane = self.pick(data), data.draw(st.integers(0, self.objects.max_lanes - 1))
            known = self.known.get(number)
            expected = STALE if known is None else int(lane not in known.lanes)
            assert self.objects.mark(number, lane) == expected
            if known is not None:
                known.lanes.add(lane)

    @rule(data=st.data())
    def where(self, data: st.DataObject) -> None:
        number = self.pick(data)
        assert self.objects.where(number) == (self.known[number].data if number in self.known else STALE)

    @rule(data=st.data())
    def forget_lane(self, data: st.DataObject) -> None:
        lane = data.draw(st.integers(0, self.objects.max_lanes - 1))
        self.objects.forget_lane(lane)
        for known in self.known.values():
            known.lanes.discard(lane)

    @precondition(lambda self: self.known)
    @rule(keep=st.integers(0, 5))
    def drop_most(self, keep: int) -> None:
        for number in list(self.known)[keep:]:
            known = self.known.pop(number)
            answers = [self.objects.unref(number) for _ in range(known.refs)]
            assert answers == [0] * (known.refs - 1) + [sorted(known.lanes)]

    @invariant()
    def agrees_with_the_dictionary(self) -> None:
        assert self.objects.check() == OK
        assert self.objects.count == len(self.known)
        assert self.objects.bytes == sum(len(known.data) for known in self.known.values())
        for number, known in self.known.items():
            assert self.objects.get(number) == (known.data, known.codec)
        assert self.objects.get(0) == STALE
        assert self.memory.live == 2 + 2 * len(self.known)

    def teardown(self) -> None:
        if hasattr(self, "objects"):
            self.objects.destroy()
            assert self.memory.live == 0
            self.memory.close()


TestObjectsAgainstDict = ObjectsAgainstDict.TestCase
TestObjectsAgainstDict.settings = same_every_time(40, steps=25)


@pytest.fixture
def objects() -> Iterator[Objects]:
    memory = Memory()
    objects = Objects(memory, 70)
    yield objects
    assert objects.check() == OK
    objects.destroy()
    assert memory.live == 0
    memory.close()


def test_an_empty_table_knows_no_object(objects: Objects) -> None:
    assert (objects.count, objects.bytes) == (0, 0)
    for number in [0, 1, 64, 2**64 - 1]:
        assert objects.get(number) == STALE
        assert objects.ref(number) == STALE
        assert objects.unref(number) == STALE
        assert objects.mark(number, 0) == STALE
    objects.forget_lane(3)


def test_id_zero_and_an_id_that_is_there_are_refused(objects: Objects) -> None:
    assert objects.add(0, b"zero") == INVALID
    assert objects.add(5, b"five") == OK
    live = objects.memory.live
    assert objects.add(5, b"other", 3) == INVALID
    assert objects.memory.live == live
    assert objects.get(5) == (b"five", 1)
    assert (objects.count, objects.bytes) == (1, 4)


def test_an_object_stays_until_its_last_reference_goes(objects: Objects) -> None:
    assert objects.add(5, b"five") == OK
    assert [objects.ref(5) for _ in range(3)] == [OK] * 3
    assert [objects.unref(5) for _ in range(3)] == [0] * 3
    assert objects.get(5) == (b"five", 1)
    assert objects.unref(5) == []
    assert objects.get(5) == objects.unref(5) == STALE
    assert objects.add(5, b"another five", 2) == OK
    assert objects.get(5) == (b"another five", 2)


def test_the_bytes_are_a_copy(objects: Objects) -> None:
    source = bytearray(b"before")
    part = ffi.new("mt_part *", {"data": ffi.from_buffer(source), "size": 6})
    assert lib.mt_objects_add(objects.handle, 1, part, 0) == OK
    source[:] = b"after!"
    assert objects.get(1) == (b"before", 0)


def test_an_object_without_bytes_is_an_object(objects: Objects) -> None:
    assert lib.mt_objects_add(objects.handle, 1, ffi.new("mt_part *"), 7) == OK
    assert objects.get(1) == (b"", 7)
    assert (objects.count, objects.bytes) == (1, 0)


def test_each_lane_is_told_once_and_all_that_have_it_are_named(objects: Objects) -> None:
    lanes = [0, 1, 31, 32, 62, 63, 64, 65, 69]
    assert objects.add(1, b"x") == objects.add(2, b"y") == OK
    assert [objects.mark(1, lane) for lane in lanes] == [1] * len(lanes)
    assert [objects.mark(1, lane) for lane in lanes] == [0] * len(lanes)
    assert objects.mark(2, 63) == 1
    assert objects.unref(1) == lanes
    assert objects.unref(2) == [63]
    assert objects.add(1, b"x") == OK
    assert objects.mark(1, 0) == 1, "a new object of an old id is new to every lane"


def test_a_replaced_lane_has_nothing_any_more(objects: Objects) -> None:
    for number in range(1, 10):
        assert objects.add(number, b"x") == OK
        assert [objects.mark(number, lane) for lane in (63, 64, 65)] == [1] * 3
    objects.forget_lane(64)
    for number in range(1, 10):
        assert [objects.mark(number, lane) for lane in (63, 65)] == [0, 0]
    assert objects.mark(1, 64) == 1
    assert objects.unref(1) == [63, 64, 65]
    assert objects.unref(2) == [63, 65]


@pytest.mark.parametrize("shift", [0, 20, 44, 54])
def test_ids_in_each_others_way_are_found_after_any_removal(objects: Objects, shift: int) -> None:
    """Ids with the same low bits collide: removals in the middle of runs must leave none unreachable."""
    ids = [i << shift for i in range(1, 201)]
    for number in ids:
        assert objects.add(number, number.to_bytes(8, "little")) == OK
    assert objects.check() == OK
    left = dict.fromkeys(ids)
    for number in ids[::3] + ids[1::3]:
        assert objects.unref(number) == []
        del left[number]
        assert objects.check() == OK
    assert all(objects.get(number) == (number.to_bytes(8, "little"), 1) for number in left)
    assert all(objects.get(number) == STALE for number in ids if number not in left)
    assert objects.count == len(left) == 66


def test_growing_keeps_references_and_lanes(objects: Objects) -> None:
    for number in range(1, FIRST_CAPACITY * 5):
        assert objects.add(number, bytes(number)) == OK
        assert objects.ref(number) == OK
        assert objects.mark(number, number % 70) == 1
    for number in range(1, FIRST_CAPACITY * 5):
        assert objects.unref(number) == 0
        assert objects.unref(number) == [number % 70]
    assert (objects.count, objects.bytes) == (0, 0)


def test_destroying_a_table_frees_objects_that_are_still_in_it() -> None:
    memory = Memory()
    objects = Objects(memory, 3)
    for number in range(1, 100):
        assert objects.add(number, b"left behind") == OK
    objects.destroy()
    assert memory.live == 0
    memory.close()
    lib.mt_objects_destroy(ffi.NULL)


def test_without_memory_no_object_is_added_and_none_is_lost() -> None:
    def scenario(memory: Memory) -> None:
        objects = Objects(memory, 65)
        added: list[int] = []

        def unchanged() -> int:
            assert objects.count == len(added)
            assert objects.bytes == 3 * len(added)
            assert all(objects.get(number) == (b"abc", 1) for number in added)
            return objects.check()

        for number in range(1, FIRST_CAPACITY // 2 + 3):  # it grows when it is half full
            live = memory.live
            assert memory.attempt(partial(objects.add, number, b"abc"), unchanged) == OK
            assert memory.live == live + 2
            added.append(number)
            assert unchanged() == OK
        assert [objects.unref(number) for number in added] == [[]] * len(added)
        objects.destroy()

    assert each_allocation_failing(scenario) == 2 + 2 * (FIRST_CAPACITY // 2 + 2) + 1


def test_without_memory_a_refused_id_leaves_nothing_behind() -> None:
    def scenario(memory: Memory) -> None:
        objects = Objects(memory, 1)
        assert memory.attempt(partial(objects.add, 0, b"abc"), objects.check) == INVALID
        assert memory.live == 2
        objects.destroy()

    assert each_allocation_failing(scenario) == 3


def test_bytes_stay_where_they_were_put(objects: Objects) -> None:
    files = open_files()
    content = bytes(range(256)) * 100
    assert objects.add(1, content) == objects.add(2, b"") == OK
    live = objects.memory.live
    assert [objects.where(1) for _ in range(3)] == [content] * 3
    assert objects.where(2) == b""
    assert open_files() == files + 2
    assert objects.get(1) == (content, 1)
    assert (objects.memory.live, objects.bytes) == (live, len(content))
    assert objects.unref(1) == objects.unref(2) == []
    assert open_files() == files


def test_a_mapping_outlives_the_object_and_private_changes_are_nobody_elses(objects: Objects) -> None:
    assert objects.add(1, b"abc" * 1000) == OK
    where = ffi.new("mt_where *")
    assert lib.mt_objects_where(objects.handle, 1, where) == OK
    ours, theirs = (lib.mt_mapping_open(where, ffi.sizeof("mt_where"), private) for private in (True, False))
    ffi.buffer(ours.data, 3)[:] = b"xyz"
    assert ffi.buffer(theirs.data, 6)[:] == b"abcabc"
    assert ffi.buffer(ours.data, 6)[:] == b"xyzabc"
    assert objects.get(1) == (b"abc" * 1000, 1)
    assert objects.unref(1) == []
    assert ffi.buffer(theirs.data, theirs.size)[:] == b"abc" * 1000
    for mapping in (ours, theirs):
        lib.mt_mapping_close(mapping)
    lib.mt_mapping_close(ffi.NULL)


def test_what_lies_there_instead_is_not_mapped(objects: Objects) -> None:
    assert objects.add(1, b"abc") == objects.add(2, b"def") == OK
    where = ffi.new("mt_where *")
    assert lib.mt_objects_where(objects.handle, 1, where) == OK
    assert objects.unref(1) == []
    assert lib.mt_mapping_open(where, ffi.sizeof("mt_where"), False) == ffi.NULL
    assert ffi.errno == errno.ENOENT
    assert objects.where(2) == b"def"  # in a file with the descriptor of the other
    assert lib.mt_mapping_open(where, ffi.sizeof("mt_where"), False) == ffi.NULL
    assert ffi.errno == errno.ESTALE
    assert lib.mt_mapping_open(where, 3, False) == ffi.NULL
    assert ffi.errno == errno.EINVAL


def test_nobody_can_shorten_or_change_the_file(objects: Objects) -> None:
    assert objects.add(1, b"abc") == OK
    where = ffi.new("mt_where *")
    assert lib.mt_objects_where(objects.handle, 1, where) == OK
    for change in (lambda: os.ftruncate(where.fd, 0), lambda: os.pwrite(where.fd, b"x", 40)):
        with pytest.raises(PermissionError):
            change()


def test_half_of_the_descriptors_are_the_scripts(objects: Objects) -> None:
    assert objects.add(1, b"abc") == OK
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    held = []
    try:
        while not held or held[-1] < highest // 2:
            held.append(os.open("/dev/null", os.O_RDONLY))
        assert objects.where(1) == lib.MT_E_SYS
        assert objects.get(1) == (b"abc", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in held:
            os.close(fd)
    assert objects.where(1) == b"abc"


def test_without_memory_bytes_stay_in_the_heap() -> None:
    memory = Memory(fail_at=2 + 2 + 1)
    objects = Objects(memory, 1)
    assert objects.add(1, b"abc") == OK
    assert objects.where(1) == lib.MT_E_SYS
    assert objects.get(1) == (b"abc", 1)
    assert objects.where(1) == b"abc"
    objects.destroy()
    assert memory.live == 0
    memory.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
