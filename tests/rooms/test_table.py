"""The table of ids against a dictionary; ids that are wrong or late; no memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing, same_every_time

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG

SENTINEL = 0xDEAD


def pointer(number: int) -> Any:
    """The table never looks behind a pointer: any number but 0 will do."""
    return ffi.cast("void *", number)


def number_of(found: Any) -> int | None:
    return None if found == ffi.NULL else int(ffi.cast("uintptr_t", found))


def add(table: Any, number: int) -> int:
    out = ffi.new("uint64_t *", SENTINEL)
    assert lib.mt_table_add(table, pointer(number), out) == OK
    return int(out[0])


def walk(table: Any) -> list[int]:
    cursor = ffi.new("uint64_t *", 0)
    found = []
    while (number := number_of(lib.mt_table_next(table, cursor))) is not None:
        found.append(number)
    return found


class Table(RuleBasedStateMachine):
    """Everything that can be asked, after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.table = lib.mt_table_new(self.memory.alloc)
        self.live: dict[int, int] = {}
        self.dead: list[int] = []
        self.added = 0

    @rule(times=st.integers(1, 12))
    def add(self, times: int) -> None:
        for _ in range(times):
            self.added += 1
            new = add(self.table, self.added)
            assert new != 0
            assert new not in self.live
            assert new not in self.dead
            self.live[new] = self.added

    def _remove(self, which: int) -> None:
        assert number_of(lib.mt_table_remove(self.table, which)) == self.live.pop(which)
        self.dead.append(which)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        self._remove(data.draw(st.sampled_from(sorted(self.live))))

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def a_late_id_finds_nothing(self, data: st.DataObject) -> None:
        late = data.draw(st.sampled_from(self.dead))
        assert lib.mt_table_find(self.table, late) == ffi.NULL
        assert lib.mt_table_remove(self.table, late) == ffi.NULL

    @rule(
        wrong=st.one_of(
            st.integers(0, 2**64 - 1), st.builds(lambda g, s: g << 32 | s, st.integers(0, 5), st.integers(0, 20))
        )
    )
    def a_wrong_id_finds_nothing(self, wrong: int) -> None:
        assert number_of(lib.mt_table_find(self.table, wrong)) == self.live.get(wrong)
        if wrong not in self.live:
            assert lib.mt_table_remove(self.table, wrong) == ffi.NULL

    @rule(every=st.integers(1, 4))
    def remove_while_walking(self, every: int) -> None:
        ids = {number: which for which, number in self.live.items()}
        cursor = ffi.new("uint64_t *", 0)
        seen = []
        while (number := number_of(lib.mt_table_next(self.table, cursor))) is not None:
            seen.append(number)
            if len(seen) % every == 0:
                self._remove(ids[number])
        assert sorted(seen) == sorted(ids)

    @invariant()
    def agrees_with_the_dictionary(self) -> None:
        assert lib.mt_table_check(self.table) == OK
        assert lib.mt_table_count(self.table) == len(self.live)
        assert sorted(walk(self.table)) == sorted(self.live.values())
        for which, number in self.live.items():
            assert number_of(lib.mt_table_find(self.table, which)) == number
        assert lib.mt_table_find(self.table, 0) == ffi.NULL

    def teardown(self) -> None:
        lib.mt_table_destroy(self.table)
        assert self.memory.live == 0
        self.memory.close()


TestTable = Table.TestCase
TestTable.settings = same_every_time(30, steps=30)


@pytest.fixture
def table() -> Any:
    memory = Memory()
    table = lib.mt_table_new(memory.alloc)
    yield table
    assert lib.mt_table_check(table) == OK
    lib.mt_table_destroy(table)
    assert memory.live == 0
    memory.close()


def test_an_empty_table_finds_nothing(table: Any) -> None:
    assert lib.mt_table_count(table) == 0
    assert walk(table) == []
    for wrong in [0, 1, 1 << 32, 2**64 - 1]:
        assert lib.mt_table_find(table, wrong) == ffi.NULL
        assert lib.mt_table_remove(table, wrong) == ffi.NULL


def test_an_id_names_its_slot_and_generation(table: Any) -> None:
    first = add(table, 5)
    assert first >> 32 != 0
    assert lib.mt_table_find(table, first + (1 << 32)) == ffi.NULL
    assert lib.mt_table_find(table, first - (1 << 32)) == ffi.NULL
    assert lib.mt_table_find(table, first + 1) == ffi.NULL
    assert number_of(lib.mt_table_find(table, first)) == 5


def test_a_slot_used_again_gets_the_next_generation(table: Any) -> None:
    ids = []
    for i in range(1, 300):
        ids.append(add(table, i))
        assert number_of(lib.mt_table_remove(table, ids[-1])) == i
    assert {which & 0xFFFFFFFF for which in ids} == {0}
    generations = [which >> 32 for which in ids]
    assert generations == list(range(generations[0], generations[0] + len(ids)))
    assert all(lib.mt_table_find(table, which) == ffi.NULL for which in ids)


def test_a_slot_that_has_had_its_last_generation_is_used_no_more(table: Any) -> None:
    assert number_of(lib.mt_table_remove(table, add(table, 1))) == 1
    lib.mt_table_test_age(table, 2**32 - 2)
    ids = []
    for i in range(5):
        ids.append(add(table, 10 + i))
        assert number_of(lib.mt_table_remove(table, ids[-1])) == 10 + i
        assert lib.mt_table_check(table) == OK
    assert [(which >> 32, which & 0xFFFFFFFF) for which in ids] == [
        (2**32 - 2, 0),
        (2**32 - 1, 0),
        (1, 1),
        (2, 1),
        (3, 1),
    ]
    assert all(lib.mt_table_find(table, which) == ffi.NULL for which in ids)
    assert walk(table) == []


def test_the_same_pointer_may_be_there_twice(table: Any) -> None:
    one, other = add(table, 9), add(table, 9)
    assert one != other
    assert number_of(lib.mt_table_remove(table, one)) == 9
    assert number_of(lib.mt_table_find(table, other)) == 9


def test_growing_keeps_every_id_and_a_full_table_empties_again(table: Any) -> None:
    ids = [add(table, i) for i in range(1, 2001)]
    assert lib.mt_table_count(table) == len(set(ids)) == 2000
    assert [number_of(lib.mt_table_find(table, which)) for which in ids] == list(range(1, 2001))
    for which in ids[::2]:
        lib.mt_table_remove(table, which)
    assert walk(table) == list(range(2, 2001, 2))
    again = [add(table, 5000 + i) for i in range(1000)]
    assert {which & 0xFFFFFFFF for which in again} == {which & 0xFFFFFFFF for which in ids[::2]}, "freed slots first"


def test_a_cursor_at_the_end_stays_there(table: Any) -> None:
    add(table, 1)
    cursor = ffi.new("uint64_t *", 0)
    assert number_of(lib.mt_table_next(table, cursor)) == 1
    for _ in range(3):
        assert lib.mt_table_next(table, cursor) == ffi.NULL
    cursor[0] = 2**64 - 1
    assert lib.mt_table_next(table, cursor) == ffi.NULL


def test_destroying_no_table_does_nothing() -> None:
    lib.mt_table_destroy(ffi.NULL)


def test_without_memory_nothing_is_added_and_nothing_is_lost() -> None:
    def scenario(memory: Memory) -> None:
        table = memory.attempt(partial(lib.mt_table_new, memory.alloc))
        out = ffi.new("uint64_t *")
        ids: list[int] = []

        def unchanged() -> int:
            assert out[0] == SENTINEL, "a call that failed has touched its output"
            assert [number_of(lib.mt_table_find(table, which)) for which in ids] == list(range(1, len(ids) + 1))
            assert walk(table) == list(range(1, len(ids) + 1))
            assert lib.mt_table_count(table) == len(ids)
            return int(lib.mt_table_check(table))

        for i in range(1, 41):
            out[0] = SENTINEL
            assert memory.attempt(partial(lib.mt_table_add, table, pointer(i), out), unchanged) == OK
            ids.append(int(out[0]))
        out[0] = SENTINEL
        assert unchanged() == OK
        lib.mt_table_destroy(table)

    assert each_allocation_failing(scenario) >= 3
