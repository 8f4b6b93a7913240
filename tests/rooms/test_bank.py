"""A bank of virtual workers against a small oracle; its end and its death; no memory."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing, same_every_time

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG

NEVER_NS = 2**64 - 1
MICROSECOND = 1_000
DURATIONS = [0, 1, 2, 50, 1_000, 1_000_000, 2**32 - 1]


class OutOfMemoryError(Exception):
    """Out of memory, which is final for an engine."""


class Stand:
    """A bank at a root, with Python's types."""

    def __init__(self, memory: Memory, slots: int, role: int = lib.MT_ROLE_CHILD) -> None:
        self.memory = memory
        self.handle = memory.attempt(partial(lib.mt_bank_stand_new, memory.alloc, role, slots))
        self.tasks: list[Any] = []

    def destroy(self) -> None:
        lib.mt_bank_stand_destroy(self.handle)
        for task in self.tasks:
            lib.mt_task_unref(task)

    def _call(self, function: Any, *args: Any) -> int:
        status = int(function(self.handle, *args))
        if status == lib.MT_E_NOMEM:
            self.memory.told += 1
            raise OutOfMemoryError
        assert status >= OK, ffi.string(lib.mt_status_text(status))
        return status

    def submit(self, arguments: bytes, codec: int = lib.MT_CODEC_MARSHAL) -> int:
        """The task's number."""
        number = len(self.tasks)
        raw = ffi.new("unsigned char[]", arguments)
        part = ffi.new("mt_part *", {"data": raw, "size": len(arguments)})
        fields = {"number": number, "fn": 1, "codec": codec, "n_args": 1, "args": part}
        spec = ffi.new("mt_task_spec *", fields)
        task = self.memory.attempt(partial(lib.mt_task_new, self.memory.alloc, spec))
        self.tasks.append(task)
        self._call(lib.mt_bank_stand_submit, task)
        return number

    def dispatch(self) -> None:
        self._call(lib.mt_bank_stand_dispatch)

    def step(self, now_ns: int) -> int:
        """How many records came up."""
        return self._call(lib.mt_bank_stand_step, now_ns)

    def kill(self) -> int:
        """How many tasks it had begun."""
        return self._call(lib.mt_bank_stand_kill)

    def stop(self) -> None:
        self._call(lib.mt_bank_stand_stop)

    def state(self, number: int) -> int:
        return int(lib.mt_task_state(self.tasks[number]))

    def check(self) -> int:
        return int(lib.mt_bank_stand_check(self.handle))

    @property
    def has_left(self) -> bool:
        return bool(lib.mt_bank_stand_has_left(self.handle))

    @property
    def due_ns(self) -> int:
        return int(lib.mt_bank_stand_due_ns(self.handle))

    @property
    def wake_ns(self) -> int:
        return int(lib.mt_bank_stand_wake_ns(self.handle))

    @property
    def running(self) -> int:
        return int(lib.mt_bank_stand_running(self.handle))

    @property
    def waiting(self) -> int:
        return int(lib.mt_bank_stand_waiting(self.handle))

    @property
    def outstanding(self) -> int:
        return int(lib.mt_bank_stand_outstanding(self.handle))

    @property
    def slots(self) -> int:
        return int(lib.mt_bank_stand_slots(self.handle))


def last(microseconds: int, before: int = 4) -> bytes:
    """Arguments that end with this number."""
    return b"\xff" * before + microseconds.to_bytes(4, "little")


def span(first: int, count: int, microseconds: int, combine: int = 0, losses: int = 0, chunk: int = 0) -> bytes:
    """The arguments of a task of many items, each of which takes so long."""
    return struct.pack("<QQQII", first, count, combine, losses, chunk) + last(microseconds)


class BankAgainstOracle(RuleBasedStateMachine):
    """What runs, what waits, who ends when and in which order, after every step."""

    @initialize(slots=st.sampled_from([1, 1, 2, 3, 10, 100]), role=st.sampled_from(["child", "child", "worker"]))
    def start(self, slots: int, role: str) -> None:
        self.memory = Memory()
        self.slots = 1 if role == "worker" else slots
        self.stand = Stand(self.memory, slots, lib.MT_ROLE_WORKER if role == "worker" else lib.MT_ROLE_CHILD)
        self.now_ns = 5
        self.queue: deque[tuple[int, int]] = deque()  # at the root: number, duration
        self.waiting: deque[tuple[int, int]] = deque()
        self.running: list[tuple[int, int, int]] = []  # end, order, number
        self.begun = 0
        self.up = False
        self.left = 0
        self.done: set[int] = set()
        self.lost: set[int] = set()

    @rule(durations=st.lists(st.sampled_from(DURATIONS), min_size=1, max_size=20), before=st.sampled_from([0, 1, 20]))
    def submit(self, durations: list[int], before: int) -> None:
        for microseconds in durations:
            self.queue.append((self.stand.submit(last(microseconds, before)), microseconds * MICROSECOND))
            self.left += 1

    @rule(arguments=st.binary(max_size=3))
    def submit_without_a_number(self, arguments: bytes) -> None:
        self.queue.append((self.stand.submit(arguments), 0))
        self.left += 1

    @rule()
    def dispatch(self) -> None:
        free = self.slots - len(self.running) - len(self.waiting)
        self.stand.dispatch()
        sent = self.stand.running + self.stand.waiting - len(self.running) - len(self.waiting)
        if self.up:
            assert sent >= min(free, len(self.queue)), "free slots get work"
        else:
            assert sent == 0, "nothing is sent to who has not said HELLO"
        self.waiting.extend(self.queue.popleft() for _ in range(sent))

    def begin(self) -> None:
        while len(self.running) < self.slots and self.waiting:
            number, duration_ns = self.waiting.popleft()
            self.running.append((self.now_ns + duration_ns, self.begun, number))
            self.begun += 1

    @rule(later_ns=st.sampled_from([0, 0, 1, MICROSECOND, 10**6, 10**9, 10**13]))
    def step(self, later_ns: int) -> None:
        self.now_ns += later_ns
        expected = []
        self.begin()
        while self.running and min(self.running)[0] <= self.now_ns:
            first = min(self.running)
            self.running.remove(first)
            expected.append(first[2])
            self.begin()
        assert self.stand.step(self.now_ns) == len(expected) + (not self.up)
        self.up = True
        self.done.update(expected)
        self.left -= len(expected)

    @precondition(lambda self: self.running)
    @rule()
    def step_when_due(self) -> None:
        self.step(max(0, min(self.running)[0] - self.now_ns))

    @rule()
    def kill(self) -> None:
        assert self.stand.kill() == self.begun
        self.lost.update(number for _, _, number in self.running)
        self.left -= len(self.running)
        self.queue.extendleft(reversed(self.waiting))
        self.waiting.clear()
        self.running.clear()
        self.begun = 0
        self.up = False

    @invariant()
    def agrees(self) -> None:
        assert self.stand.check() == OK
        assert (self.stand.running, self.stand.waiting) == (len(self.running), len(self.waiting))
        assert self.stand.slots == (self.slots if self.up else 0)
        assert self.stand.outstanding == self.left
        for number in range(len(self.stand.tasks)):
            state = self.stand.state(number)
            assert (state == lib.MT_DONE, state == lib.MT_FAILED) == (number in self.done, number in self.lost)
        if not self.up or (self.waiting and len(self.running) < self.slots):
            assert self.stand.due_ns == self.stand.wake_ns == 0
        elif self.running:
            assert self.stand.due_ns == min(self.running)[0]
            assert self.stand.due_ns <= self.stand.wake_ns <= self.stand.due_ns + 2**32 * MICROSECOND // 512
        else:
            assert self.stand.due_ns == self.stand.wake_ns == NEVER_NS

    def teardown(self) -> None:
        if hasattr(self, "stand"):
            self.stand.destroy()
            assert self.memory.live == 0
            self.memory.close()


BankAgainstOracle.TestCase.settings = same_every_time(12, steps=25)
test_bank_against_an_oracle = BankAgainstOracle.TestCase


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory()
    yield memory
    assert memory.live == 0
    memory.close()


def test_the_value_is_none(memory: Memory) -> None:
    import marshal

    stand = Stand(memory, 1)
    stand.submit(last(3))
    stand.step(0)
    stand.dispatch()
    stand.step(10)
    assert stand.due_ns == 10 + 3 * MICROSECOND
    assert stand.step(9 + 3 * MICROSECOND) == 0
    assert stand.step(10 + 3 * MICROSECOND) == 1
    value = lib.mt_task_value(stand.tasks[0])
    assert (value.codec, value.outcome) == (lib.MT_CODEC_MARSHAL, lib.MT_OUTCOME_OK)
    assert marshal.loads(ffi.buffer(value.data, value.size)[:]) is None
    stand.destroy()


def test_a_marshalled_call_ends_with_its_last_integer(memory: Memory) -> None:
    import marshal

    stand = Stand(memory, 1)
    stand.submit(marshal.dumps(("name", 1.5, 123_456), 2))
    stand.step(0)
    stand.dispatch()
    stand.step(0)
    assert stand.due_ns == 123_456 * MICROSECOND
    assert stand.wake_ns == 123_456 * MICROSECOND * 513 // 512
    stand.destroy()


def test_a_pickled_call_takes_no_time(memory: Memory) -> None:
    """Its last bytes are no number: misread, they would keep a slot for a quarter of an hour."""
    import pickle

    stand = Stand(memory, 1)
    number = stand.submit(pickle.dumps((90_000_000,), 5), codec=lib.MT_CODEC_PICKLE)
    stand.step(0)
    stand.dispatch()
    stand.step(1)
    assert lib.mt_task_value(stand.tasks[number]).outcome == lib.MT_OUTCOME_OK
    stand.destroy()


@pytest.mark.parametrize("role", [lib.MT_ROLE_CHILD, lib.MT_ROLE_WORKER])
def test_a_stopped_bank_drops_what_it_has_and_a_child_says_bye_once(memory: Memory, role: int) -> None:
    stand = Stand(memory, 2, role)
    for _ in range(3):
        stand.submit(last(10**6))
    stand.step(0)
    stand.dispatch()
    stand.step(0)
    assert stand.running == (2 if role == lib.MT_ROLE_CHILD else 1)
    stand.stop()
    if role == lib.MT_ROLE_CHILD:
        assert (stand.running, stand.waiting, stand.due_ns) == (0, 0, 0)
        assert not stand.has_left
        assert stand.step(0) == 1
        assert stand.due_ns == NEVER_NS
        assert stand.step(10**15) == 0
        lost = [lib.mt_task_value(stand.tasks[i]).outcome == lib.MT_OUTCOME_LOST for i in range(2)]
        assert (lost, stand.outstanding) == ([True, True], 1)  # the third had not been sent
    assert stand.has_left
    stand.destroy()


def test_without_memory_it_says_so_and_leaves_nothing() -> None:
    def work(stand: Stand) -> None:
        for microseconds in range(20):
            stand.submit(last(microseconds))
        stand.step(0)
        for now_ns in range(0, 15 * MICROSECOND, 5 * MICROSECOND):
            stand.dispatch()
            stand.step(now_ns)
            assert stand.check() == OK
        stand.kill()
        now_ns = 20 * MICROSECOND
        while stand.outstanding:
            stand.step(now_ns)
            stand.dispatch()
            now_ns += MICROSECOND
        assert stand.check() == OK

    def scenario(memory: Memory) -> None:
        stand = Stand(memory, 3)
        try:
            work(stand)
        except OutOfMemoryError:
            pass
        finally:
            stand.destroy()

    assert each_allocation_failing(scenario) > 20


SPAN = lib.MT_CODEC_SPAN | lib.MT_CODEC_MARSHAL


def run_span(stand: Stand, *, kills: bool = False) -> int:
    """Until nothing is left; when that was."""
    now_ns, steps = 0, 0
    while stand.outstanding:
        stand.step(now_ns)
        stand.dispatch()
        assert stand.check() == OK
        steps += 1
        if kills and steps == 6:
            stand.kill()
        assert steps < 10_000
        now_ns = max(now_ns + 10 * MICROSECOND, min(stand.due_ns, now_ns + 1_000 * MICROSECOND))
    return now_ns


def counts_of(value: Any) -> list[int]:
    data, found = bytes(ffi.buffer(value.data, value.size)), []
    while data:
        count, size, codec, _ = struct.unpack_from("<QQII", data)
        assert (size, codec) == (1, lib.MT_CODEC_MARSHAL)
        found.append(count)
        data = data[24 + 8 :]
    return found


@pytest.mark.parametrize("chunk", [0, 30])
def test_a_span_is_cut_for_virtual_workers_too(chunk: int) -> None:
    memory = Memory()
    stand = Stand(memory, 4)
    stand.step(0)
    number = stand.submit(span(10**6, 2000, 500, chunk=chunk), SPAN)
    end_ns = run_span(stand)
    assert stand.state(number) == lib.MT_DONE
    value = lib.mt_task_value(stand.tasks[number])
    assert value.codec == lib.MT_CODEC_PARTS
    counts = counts_of(value)
    assert sum(counts) == 2000
    assert max(counts) <= (chunk or 60), "30 ms"
    assert 250_000 * MICROSECOND <= end_ns < 275_000 * MICROSECOND, "four workers were busy all the time"
    stand.destroy()
    assert memory.live == 0
    memory.close()


def test_the_values_of_a_span_are_combined() -> None:
    memory = Memory()
    stand = Stand(memory, 4)
    stand.step(0)
    number = stand.submit(span(0, 3000, 500, combine=1), SPAN)
    run_span(stand)
    assert stand.state(number) == lib.MT_DONE
    value = lib.mt_task_value(stand.tasks[number])
    assert (bytes(ffi.buffer(value.data, value.size)), value.codec) == (b"N", lib.MT_CODEC_MARSHAL)
    stand.destroy()
    assert memory.live == 0
    memory.close()


def test_spans_that_make_no_sense_are_not_run() -> None:
    memory = Memory()
    stand = Stand(memory, 4)
    stand.step(0)
    numbers = [stand.submit(arguments, SPAN) for arguments in (span(0, 0, 1), span(0, 1, 1, combine=77), b"")]
    stand.dispatch()
    assert [stand.state(number) for number in numbers] == [lib.MT_CANCELLED] * 3
    assert stand.outstanding == 0
    stand.destroy()
    assert memory.live == 0
    memory.close()


@pytest.mark.parametrize("losses", [0, 9])
def test_spans_without_memory_leave_nothing(losses: int) -> None:
    def scenario(memory: Memory) -> None:
        stand = Stand(memory, 2)
        try:
            stand.step(0)
            stand.submit(span(0, 400, 500, combine=1, losses=losses), SPAN)
            number = stand.submit(span(0, 40, 500, losses=losses), SPAN)
            run_span(stand, kills=True)
            assert losses == 0 or stand.state(number) == lib.MT_DONE
        except OutOfMemoryError:
            pass
        finally:
            stand.destroy()

    assert each_allocation_failing(scenario) > 30
