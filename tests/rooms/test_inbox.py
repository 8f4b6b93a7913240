"""The inbox from one thread, against a list; full, empty, many turns; no memory. Threads: tests/stress."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing, same_every_time

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG

AGAIN = lib.MT_E_AGAIN
Message = tuple[int, int]
UNTOUCHED = (0xDEAD, 0xBEEF)


def message(kind: int, pointer: int) -> Any:
    return ffi.new("mt_message *", {"kind": kind, "pointer": ffi.cast("void *", pointer)})[0]


class Inbox:
    """The inbox, with Python's types; it never looks behind a pointer."""

    def __init__(self, capacity: int, memory: Memory) -> None:
        self.capacity = capacity
        self.handle = memory.attempt(partial(lib.mt_inbox_new, memory.alloc, capacity))

    def destroy(self) -> None:
        lib.mt_inbox_destroy(self.handle)

    def check(self) -> int:
        return int(lib.mt_inbox_check(self.handle))

    def push(self, kind: int, pointer: int) -> int:
        return int(lib.mt_inbox_push(self.handle, message(kind, pointer)))

    def pop(self, n: int) -> list[Message]:
        out = ffi.new("mt_message[]", [message(*UNTOUCHED)] * (n + 1))
        got = lib.mt_inbox_pop_many(self.handle, out, n)
        rows = [(m.kind, int(ffi.cast("uintptr_t", m.pointer))) for m in out]
        assert got <= n
        assert rows[got:] == [UNTOUCHED] * (n + 1 - got)
        return rows[:got]

    def has_data(self) -> bool:
        return bool(lib.mt_inbox_has_data(self.handle))

    def is_full(self) -> bool:
        return bool(lib.mt_inbox_is_full(self.handle))


words = st.integers(0, 2**64 - 1)


class InboxAgainstList(RuleBasedStateMachine):
    """Everything that can be asked, after every step."""

    @initialize(capacity=st.sampled_from([2, 4, 8, 64]))
    def start(self, capacity: int) -> None:
        self.memory = Memory()
        self.inbox = Inbox(capacity, self.memory)
        self.inside: deque[Message] = deque()

    @rule(messages=st.lists(st.tuples(words, words), min_size=1, max_size=12))
    def push(self, messages: list[Message]) -> None:
        for one in messages:
            fits = len(self.inside) < self.inbox.capacity
            assert self.inbox.push(*one) == (OK if fits else AGAIN)
            if fits:
                self.inside.append(one)

    @rule(n=st.integers(0, 70))
    def pop(self, n: int) -> None:
        expected = [self.inside.popleft() for _ in range(min(n, len(self.inside)))]
        assert self.inbox.pop(n) == expected

    @rule(turns=st.integers(1, 40))
    def one_by_one(self, turns: int) -> None:
        """Round and round, without changing how much is inside."""
        for i in range(turns):
            if self.inside:
                assert self.inbox.pop(1) == [self.inside.popleft()]
                assert self.inbox.push(i, turns) == OK
                self.inside.append((i, turns))

    @invariant()
    def agrees_with_the_list(self) -> None:
        assert self.inbox.check() == OK
        assert self.inbox.has_data() == bool(self.inside)
        assert self.inbox.is_full() == (len(self.inside) == self.inbox.capacity)
        assert self.memory.requests == 2, "pushing needs no memory"

    def teardown(self) -> None:
        if hasattr(self, "inbox"):
            assert self.inbox.pop(100) == list(self.inside)
            self.inbox.destroy()
            assert self.memory.live == 0
            self.memory.close()


TestInboxAgainstList = InboxAgainstList.TestCase
TestInboxAgainstList.settings = same_every_time(40, steps=25)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    memory = Memory()
    inbox = Inbox(4, memory)
    yield inbox
    assert inbox.check() == OK
    inbox.destroy()
    assert memory.live == 0
    memory.close()


def test_only_powers_of_two_from_2_to_2_24_are_capacities() -> None:
    memory = Memory()
    for capacity in [0, 1, 3, 6, 1000, 2**24 - 1, 2**24 + 1, 2**25, 2**32, 2**63, 2**64 - 1]:
        assert lib.mt_inbox_new(memory.alloc, capacity) == ffi.NULL
    assert memory.requests == 0
    for capacity in [2, 4, 1024, 2**16]:
        inbox = Inbox(capacity, memory)
        assert inbox.check() == OK
        inbox.destroy()
    assert memory.live == 0
    memory.close()
    lib.mt_inbox_destroy(ffi.NULL)


def test_an_empty_inbox_gives_nothing(inbox: Inbox) -> None:
    assert not inbox.has_data()
    assert not inbox.is_full()
    assert inbox.pop(5) == inbox.pop(0) == []


def test_a_full_inbox_refuses_until_one_has_been_taken(inbox: Inbox) -> None:
    assert [inbox.push(k, 10 + k) for k in range(4)] == [OK] * 4
    assert inbox.is_full()
    assert [inbox.push(9, 9) for _ in range(3)] == [AGAIN] * 3
    assert inbox.pop(1) == [(0, 10)]
    assert not inbox.is_full()
    assert inbox.push(4, 14) == OK
    assert inbox.push(9, 9) == AGAIN
    assert inbox.pop(10) == [(k, 10 + k) for k in range(1, 5)]
    assert not inbox.has_data()


def test_no_more_is_taken_than_was_asked_for(inbox: Inbox) -> None:
    for k in range(3):
        assert inbox.push(k, k) == OK
    assert inbox.pop(0) == []
    assert inbox.pop(2) == [(0, 0), (1, 1)]
    assert inbox.has_data()
    assert inbox.pop(2) == [(2, 2)]


def test_any_kind_and_any_pointer_pass_even_none(inbox: Inbox) -> None:
    extremes = [(0, 0), (2**64 - 1, 2**64 - 1), (1, 0), (0, 1)]
    assert [inbox.push(*one) for one in extremes] == [OK] * 4
    assert inbox.pop(4) == extremes


@pytest.mark.parametrize("fill", [1, 3, 4])
def test_the_order_stays_over_hundreds_of_turns(inbox: Inbox, fill: int) -> None:
    for k in range(fill):
        assert inbox.push(k, k) == OK
    for k in range(fill, 2000):
        assert inbox.pop(1) == [(k - fill, k - fill)]
        assert inbox.push(k, k) == OK
    assert inbox.pop(10) == [(k, k) for k in range(2000 - fill, 2000)]


def test_messages_that_are_left_are_forgotten_without_a_leak() -> None:
    memory = Memory()
    inbox = Inbox(8, memory)
    assert [inbox.push(1, 1) for _ in range(5)] == [OK] * 5
    inbox.destroy()
    assert memory.live == 0
    memory.close()


def test_without_memory_there_is_no_inbox_and_nothing_is_lost() -> None:
    def scenario(memory: Memory) -> None:
        inbox = Inbox(16, memory)
        assert [inbox.push(k, k) for k in range(16)] == [OK] * 16
        assert inbox.pop(16) == [(k, k) for k in range(16)]
        assert inbox.check() == OK
        inbox.destroy()

    assert each_allocation_failing(scenario) == 2
