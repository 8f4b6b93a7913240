"""The scheduler against a model of its policy; credit, learning, deques that grow; no memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing, same_every_time

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG

AGAIN = lib.MT_E_AGAIN
SENTINEL = 0xDEAD
OVERHEAD_NS, UNKNOWN_NS = 1_000, 1_000_000
CHUNK_NS, LEAST_CHUNK_NS, MAX_COST_NS = 30_000_000, 4_000_000, 2**53
NO_LANE = lib.MT_NO_LANE
LARGEST = 2**32 - 1
MILLISECOND, SECOND = 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class Job:
    """What `mt_sched_next` gives."""

    key: int
    cost_ns: int
    bytes: int
    lane: int
    class_index: int
    items: int = 0
    units: int = 1


FIELDS = ("key", "cost_ns", "bytes", "lane", "class_index", "items", "units")


class Sched:
    """The scheduler, with Python's types."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.handle = memory.attempt(partial(lib.mt_sched_new, memory.alloc))
        self.out = ffi.new("uint32_t *", SENTINEL)

    def destroy(self) -> None:
        lib.mt_sched_destroy(self.handle)

    def check(self) -> int:
        return int(lib.mt_sched_check(self.handle))

    def unchanged(self) -> int:
        assert self.out[0] == SENTINEL, "a call that failed has touched its output"
        return self.check()

    def _new(self, function: Any, *args: Any) -> int:
        self.out[0] = SENTINEL
        assert self.memory.attempt(partial(function, self.handle, *args, self.out), self.unchanged) == OK
        number = int(self.out[0])
        self.out[0] = SENTINEL
        return number

    def add_lane(
        self, slots: int = 1, ahead: int = 100, horizon_ns: int = SECOND, max_bytes: int = 2**40, cuts: bool = False
    ) -> int:
        limits = {"slots": slots, "max_ahead": ahead, "horizon_ns": horizon_ns, "max_bytes": max_bytes, "cuts": cuts}
        return self._new(lib.mt_sched_add_lane, ffi.new("mt_lane_limits *", limits))

    def add_class(self, expect_ns: int = 0) -> int:
        number = self._new(lib.mt_sched_add_class)
        if expect_ns:
            self.hint(number, expect_ns)
        return number

    def drop_class(self, number: int) -> None:
        lib.mt_sched_drop_class(self.handle, number)

    def expect(self, number: int) -> int:
        return int(lib.mt_sched_expect(self.handle, number))

    def hint(self, number: int, duration_ns: int) -> None:
        lib.mt_sched_hint(self.handle, number, duration_ns)

    def push(self, key: int, class_index: int = 0, priority: int = 0, size: int = 0, first: bool = False) -> None:
        call = partial(lib.mt_sched_push, self.handle, key, class_index, priority, size, first)
        assert self.memory.attempt(call, self.unchanged) == OK

    def push_job(self, key: int, *, first: bool = False, **fields: Any) -> None:
        ready = ffi.new("mt_ready *", {"key": key, "origin": NO_LANE, **fields})
        assert self.memory.attempt(partial(lib.mt_sched_push_job, self.handle, ready, first), self.unchanged) == OK

    def next(self, up: int | None = None) -> Job | None:
        """None: not now."""
        out = ffi.new("mt_assignment *", {"key": SENTINEL, "lane": SENTINEL})
        status = lib.mt_sched_next(self.handle, out) if up is None else lib.mt_sched_next_up(self.handle, up, out)
        if status == AGAIN:
            assert (out.key, out.lane) == (SENTINEL, SENTINEL)
            return None
        assert status == OK
        return Job(out.key, out.cost_ns, out.bytes, out.lane, out.class_index, out.items, out.units)

    def all(self) -> list[tuple[int, int]]:
        """Key and lane of all that can be assigned now."""
        found = []
        while (job := self.next()) is not None:
            found.append((job.key, job.lane))
        return found

    def done(self, job: Job, duration_ns: int = 0) -> None:
        fields = {name: getattr(job, name) for name in FIELDS}
        lib.mt_sched_done(self.handle, ffi.new("mt_assignment *", fields), duration_ns)

    def come_back(self, job: Job) -> None:
        fields = {name: getattr(job, name) for name in FIELDS}
        lib.mt_sched_return(self.handle, ffi.new("mt_assignment *", fields))

    def set_overdue(self, lane: int) -> None:
        lib.mt_sched_set_overdue(self.handle, lane)

    def first_priority(self) -> tuple[int, int] | None:
        """The priority that is next, and how many have it."""
        priority, n = ffi.new("int32_t *", 77), ffi.new("uint64_t *", SENTINEL)
        if lib.mt_sched_first_priority(self.handle, priority, n) == AGAIN:
            assert (priority[0], n[0]) == (77, SENTINEL)
            return None
        return int(priority[0]), int(n[0])

    def take_last(self, below: int) -> int | None:
        key = ffi.new("uint64_t *", SENTINEL)
        if lib.mt_sched_take_last(self.handle, lib.MT_NO_LANE, -(2**31), below, key) == AGAIN:
            assert key[0] == SENTINEL
            return None
        return int(key[0])

    def set_slots(self, lane: int, slots: int) -> None:
        lib.mt_sched_set_slots(self.handle, lane, slots)

    def clear_lane(self, lane: int) -> None:
        lib.mt_sched_clear_lane(self.handle, lane)

    def forget_ready(self) -> None:
        lib.mt_sched_forget_ready(self.handle)

    def booked(self, lane: int) -> int:
        return int(lib.mt_sched_booked(self.handle, lane))

    @property
    def ready(self) -> int:
        return int(lib.mt_sched_ready(self.handle))

    @property
    def slots(self) -> int:
        return int(lib.mt_sched_slots(self.handle))

    @property
    def least_load(self) -> int:
        return int(lib.mt_sched_least_load(self.handle))


@dataclass
class Lane:
    """What the oracle knows of a lane."""

    slots: int
    ahead: int
    horizon_ns: int
    max_bytes: int
    cuts: bool = False
    jobs: list[Job] = field(default_factory=list)
    overdue: bool = False

    @property
    def load(self) -> int:
        return sum(job.cost_ns for job in self.jobs) // max(1, self.slots)

    @property
    def units(self) -> int:
        return sum(job.units for job in self.jobs)

    def has_credit(self, known: bool, cost_ns: int, size: int, is_items: bool = False) -> bool:
        if self.slots == 0:
            return False
        if self.jobs and sum(job.bytes for job in self.jobs) + size > self.max_bytes:
            return False
        if self.units < self.slots:
            return True
        if not known or self.overdue:
            return False
        if is_items:
            return self.units < 2 * self.slots
        if self.units >= self.slots * self.ahead:
            return False
        return sum(job.cost_ns for job in self.jobs) + cost_ns <= self.horizon_ns * self.slots


@dataclass
class Class:
    """What is known of the durations of a class."""

    mean_ns: int = 0
    measured: bool = False
    items: int = 0
    items_ns: int = 0

    def learn(self, duration_ns: int, items: int = 0) -> None:
        cost = duration_ns + OVERHEAD_NS
        if items:
            self.items += min(items, MAX_COST_NS) * 64 - self.items // 8
            self.items_ns += cost - self.items_ns // 8
            self.mean_ns = max(1, self.items_ns * 64 // self.items)
            self.measured = True
            return
        self.mean_ns = self.mean_ns + cost // 8 - self.mean_ns // 8 if self.measured else cost
        self.measured = True


@dataclass
class Waiting:
    """A ready job."""

    key: int
    class_index: int
    size: int
    items: int = 0
    chunk: int = 0


class SchedAgainstModel(RuleBasedStateMachine):
    """Every assignment, and all that can be asked, after every step."""

    @initialize()
    def start(self) -> None:
        self.memory = Memory()
        self.sched = Sched(self.memory)
        self.lanes: list[Lane] = []
        self.classes: dict[int, Class] = {}
        self.queues: dict[int, list[Waiting]] = {}
        self.keys = 0

    @property
    def jobs(self) -> list[Job]:
        return [job for lane in self.lanes for job in lane.jobs]

    @rule(
        slots=st.sampled_from([0, 1, 1, 2, 5]),
        ahead=st.sampled_from([1, 2, 10]),
        horizon_ns=st.sampled_from([0, 100_000, SECOND]),
        max_bytes=st.sampled_from([0, 1000, 2**40]),
        cuts=st.booleans(),
    )
    def add_lane(self, slots: int, ahead: int, horizon_ns: int, max_bytes: int, cuts: bool) -> None:
        assert self.sched.add_lane(slots, ahead, horizon_ns, max_bytes, cuts) == len(self.lanes)
        self.lanes.append(Lane(slots, ahead, horizon_ns, max_bytes, cuts))

    @rule(hint_ns=st.sampled_from([0, 0, 1, 10_000, MILLISECOND]))
    def add_class(self, hint_ns: int) -> None:
        new = self.sched.add_class(hint_ns)
        assert new not in self.classes
        assert new == min(set(range(len(self.classes) + 1)) - set(self.classes)), "numbers are used again"
        self.classes[new] = Class(hint_ns)

    @precondition(lambda self: self.classes)
    @rule(seed=st.integers(0, 999))
    def drop_class(self, seed: int) -> None:
        used = {job.class_index for job in self.jobs}
        used |= {w.class_index for queue in self.queues.values() for w in queue}
        if unused := sorted(set(self.classes) - used):
            number = Random(seed).choice(unused)
            self.sched.drop_class(number)
            del self.classes[number]

    @precondition(lambda self: self.classes)
    @rule(seed=st.integers(0, 999), duration_ns=st.sampled_from([0, 1, 5_000, SECOND]))
    def hint(self, seed: int, duration_ns: int) -> None:
        number = Random(seed).choice(sorted(self.classes))
        self.sched.hint(number, duration_ns)
        if not self.classes[number].measured:
            self.classes[number].mean_ns = duration_ns

    @precondition(lambda self: self.classes)
    @rule(
        seed=st.integers(0, 2**32 - 1),
        times=st.sampled_from([1, 5, 20, 70]),
        priorities=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=3),
        first=st.booleans(),
    )
    def push(self, seed: int, times: int, priorities: list[int], first: bool) -> None:
        rng = Random(seed)
        for _ in range(times):
            self.keys += 1
            priority = rng.choice([0, 0, 1, *priorities])
            size = rng.choice([0, 0, 10, 600, 1001, LARGEST, 2**40])
            waiting = Waiting(self.keys, rng.choice(sorted(self.classes)), min(size, LARGEST))
            self.sched.push(self.keys, waiting.class_index, priority, size, first)
            queue = self.queues.setdefault(priority, [])
            queue.insert(0 if first else len(queue), waiting)

    @precondition(lambda self: self.classes)
    @rule(
        seed=st.integers(0, 999),
        items=st.sampled_from([1, 2, 50, 1_000_000, 2**64 - 1]),
        chunk=st.sampled_from([0, 0, 1, 7, 10_000]),
        first=st.booleans(),
    )
    def push_items(self, seed: int, items: int, chunk: int, first: bool) -> None:
        self.keys += 1
        rng = Random(seed)
        waiting = Waiting(self.keys, rng.choice(sorted(self.classes)), rng.choice([0, 10, 600]), items, chunk)
        self.push_waiting(waiting, rng.choice([0, 0, 1]), first)

    def push_waiting(self, waiting: Waiting, priority: int, first: bool) -> None:
        self.sched.push_job(
            waiting.key,
            first=first,
            items=waiting.items,
            bytes=waiting.size,
            class_index=waiting.class_index,
            priority=priority,
            chunk=waiting.chunk,
        )
        queue = self.queues.setdefault(priority, [])
        queue.insert(0 if first else len(queue), waiting)

    def fit(self, lane: Lane, job: Waiting, mean_ns: int, is_last: bool) -> tuple[int, int]:
        """Items and units: what the contract says of jobs of items."""
        slots = lane.slots if lane.cuts else 1
        chunk = job.chunk or (max(1, CHUNK_NS // mean_ns) if mean_ns else 1)
        units = max(1, slots // 2)
        items = min(job.items, units * chunk)
        everybody = sum(each.slots for each in self.lanes)
        if is_last and everybody > slots:
            share = max(1, -(-job.items * slots // (2 * everybody)))
            if job.chunk:
                share = -(-share // chunk) * chunk
            else:
                share = max(share, units * (LEAST_CHUNK_NS // mean_ns if mean_ns else 1))
            items = min(items, share)
        return items, -(-items // chunk)

    def expected(self) -> Job | None:
        """The policy: the oldest job of the highest priority, the lane with the least work for each slot."""
        busy = [priority for priority, queue in self.queues.items() if queue]
        if not busy:
            return None
        job = self.queues[max(busy)][0]
        mean_ns = self.classes[job.class_index].mean_ns
        cost_ns = mean_ns or UNKNOWN_NS
        known = mean_ns != 0
        able = [i for i, lane in enumerate(self.lanes) if lane.has_credit(known, cost_ns, job.size, job.items > 0)]
        if not able:
            return None
        lane = min(able, key=lambda i: (self.lanes[i].load, i))
        items, units = 0, 1
        if job.items:
            items, units = self.fit(self.lanes[lane], job, mean_ns, sum(map(len, self.queues.values())) == 1)
            cost_ns = min(MAX_COST_NS, items * mean_ns if known else units * UNKNOWN_NS)
        self.queues[max(busy)].pop(0)
        self.lanes[lane].jobs.append(Job(job.key, cost_ns, job.size, lane, job.class_index, items, units))
        return self.lanes[lane].jobs[-1]

    @rule(times=st.sampled_from([1, 3, 30]))
    def next(self, times: int) -> None:
        for _ in range(times):
            before = {priority: queue[0] for priority, queue in self.queues.items() if queue}
            expected = self.expected()
            assert self.sched.next() == expected
            if expected is None:
                break
            priority = max(before)
            if expected.items < before[priority].items:  # the caller's part: the rest is ready again
                left = before[priority].items - expected.items
                self.push_waiting(replace(before[priority], items=left), priority, first=True)

    @rule(
        seed=st.integers(0, 2**32 - 1),
        times=st.sampled_from([1, 3, 20]),
        duration_ns=st.sampled_from([0, 1, 7, 3_000, 90_000, 40 * MILLISECOND, 3600 * SECOND]),
    )
    def done(self, seed: int, times: int, duration_ns: int) -> None:
        rng = Random(seed)
        for _ in range(min(times, len(self.jobs))):
            job = rng.choice(self.jobs)
            self.sched.done(job, duration_ns)
            self.lanes[job.lane].jobs.remove(job)
            self.lanes[job.lane].overdue = False
            if duration_ns:
                self.classes[job.class_index].learn(duration_ns, job.items)

    @precondition(lambda self: self.lanes)
    @rule(seed=st.integers(0, 999), slots=st.sampled_from([0, 1, 3]))
    def set_slots(self, seed: int, slots: int) -> None:
        number = Random(seed).randrange(len(self.lanes))
        self.sched.set_slots(number, slots)
        self.lanes[number].slots = slots

    @precondition(lambda self: self.lanes)
    @rule(seed=st.integers(0, 999))
    def clear_lane(self, seed: int) -> None:
        number = Random(seed).randrange(len(self.lanes))
        self.sched.clear_lane(number)
        self.lanes[number].jobs.clear()
        self.lanes[number].overdue = False

    @precondition(lambda self: self.lanes)
    @rule(seed=st.integers(0, 999))
    def set_overdue(self, seed: int) -> None:
        number = Random(seed).randrange(len(self.lanes))
        self.sched.set_overdue(number)
        self.lanes[number].overdue = True

    @rule(seed=st.integers(0, 2**32 - 1), times=st.sampled_from([1, 3, 20]))
    def come_back(self, seed: int, times: int) -> None:
        rng = Random(seed)
        for _ in range(min(times, len(self.jobs))):
            job = rng.choice(self.jobs)
            self.sched.come_back(job)
            self.lanes[job.lane].jobs.remove(job)

    @rule(times=st.sampled_from([1, 5]), below=st.sampled_from([-3, 0, 1, 2, 2**31, 2**32, -(2**32)]))
    def take_last(self, times: int, below: int) -> None:
        for _ in range(times):
            busy = [priority for priority, queue in self.queues.items() if queue]
            expected = self.queues[min(busy)].pop().key if busy and min(busy) < below else None
            assert self.sched.take_last(below) == expected

    @precondition(lambda self: sum(map(len, self.queues.values())) > 100)
    @rule()
    def forget_ready(self) -> None:
        self.sched.forget_ready()
        self.queues.clear()

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "sched"):
            return
        assert self.sched.check() == OK
        assert self.sched.ready == sum(map(len, self.queues.values()))
        assert self.sched.slots == sum(lane.slots for lane in self.lanes)
        busy = [priority for priority, queue in self.queues.items() if queue]
        assert self.sched.first_priority() == ((max(busy), len(self.queues[max(busy)])) if busy else None)
        for number, lane in enumerate(self.lanes):
            assert self.sched.booked(number) == len(lane.jobs)
            ahead = lane.units - lane.slots
            assert lib.mt_sched_idle(self.sched.handle, number) == max(0, -ahead)
            assert lib.mt_sched_excess(self.sched.handle, number) == max(0, ahead)
            assert lib.mt_sched_load(self.sched.handle, number) == lane.load
        for number, known in self.classes.items():
            assert self.sched.expect(number) == known.mean_ns
        assert self.sched.least_load == min((lane.load for lane in self.lanes if lane.slots), default=0)

    def teardown(self) -> None:
        if hasattr(self, "sched"):
            self.sched.destroy()
            assert self.memory.live == 0
            self.memory.close()


TestSchedAgainstModel = SchedAgainstModel.TestCase
TestSchedAgainstModel.settings = same_every_time(50, steps=40)


@pytest.fixture
def sched() -> Iterator[Sched]:
    memory = Memory()
    sched = Sched(memory)
    yield sched
    assert sched.check() == OK
    sched.destroy()
    assert memory.live == 0
    memory.close()


def test_without_jobs_or_lanes_nothing_is_assigned(sched: Sched) -> None:
    assert sched.next() is None
    assert (sched.ready, sched.slots, sched.least_load) == (0, 0, 0)
    sched.add_class()
    sched.push(1)
    assert sched.next() is None, "no lane"
    lane = sched.add_lane(slots=0)
    assert sched.next() is None, "no slot"
    sched.set_slots(lane, 1)
    assert sched.all() == [(1, lane)]
    assert sched.next() is None
    lib.mt_sched_destroy(ffi.NULL)


def test_priorities_come_first_and_age_within_them(sched: Sched) -> None:
    sched.add_class()
    sched.add_lane(slots=100)
    for key, priority in enumerate([0, 5, -5, 5, 0, 2**31 - 1, -(2**31), 0]):
        sched.push(key, priority=priority)
    assert [key for key, _ in sched.all()] == [5, 1, 3, 0, 4, 7, 2, 6]


def test_a_job_that_has_waited_already_comes_before_others_of_its_priority_only(sched: Sched) -> None:
    sched.add_class()
    sched.add_lane(slots=100)
    for key in range(3):
        sched.push(key, priority=key % 2)
    sched.push(10, priority=0, first=True)
    sched.push(11, priority=0, first=True)
    sched.push(12, priority=-1, first=True)
    assert [key for key, _ in sched.all()] == [1, 11, 10, 0, 2, 12]


def test_a_queue_that_turns_and_grows_keeps_its_order(sched: Sched) -> None:
    """64 places at first: filled from both ends, in the middle of a turn."""
    sched.add_class()
    lane = sched.add_lane(slots=10_000)
    for key in range(50):
        sched.push(key)
    for key in range(40):
        assert sched.next() == Job(key, UNKNOWN_NS, 0, lane, 0)
    expected = list(range(40, 50))
    for key in range(100, 400):
        first = key % 3 == 0
        sched.push(key, first=first)
        expected.insert(0 if first else len(expected), key)
        assert sched.check() == OK
    assert [key for key, _ in sched.all()] == expected


def test_many_priorities_one_after_the_other_need_no_more_memory(sched: Sched) -> None:
    sched.add_class()
    sched.add_lane(slots=1)
    sched.push(1, priority=7)
    before = sched.memory.requests
    for priority in range(1000):
        job = sched.next()
        assert job is not None
        sched.done(job)
        sched.push(2, priority=priority if priority % 2 else -priority)
    assert sched.memory.requests == before


def test_jobs_go_to_the_lane_with_least_work_for_each_slot(sched: Sched) -> None:
    known = sched.add_class(10_000)
    one, three = sched.add_lane(slots=1), sched.add_lane(slots=3)
    for key in range(8):
        sched.push(key, known)
    assert [lane for _, lane in sched.all()] == [one, three, three, three, one, three, three, three]
    assert (sched.booked(one), sched.booked(three)) == (2, 6)
    assert sched.least_load == 20_000


def test_jobs_of_unknown_duration_are_spread_and_not_sent_ahead(sched: Sched) -> None:
    unknown = sched.add_class()
    lanes = [sched.add_lane(slots=2) for _ in range(3)]
    for key in range(10):
        sched.push(key, unknown)
    assert [lane for _, lane in sched.all()] == lanes * 2
    assert sched.ready == 4


def test_short_jobs_are_sent_ahead_up_to_the_horizon_and_long_ones_are_not(sched: Sched) -> None:
    short, long = sched.add_class(1_000), sched.add_class(SECOND)
    lane = sched.add_lane(slots=2, ahead=1000, horizon_ns=50_000)
    for key in range(200):
        sched.push(key, short)
    assert len(sched.all()) == 2 * 50
    sched.forget_ready()
    sched.clear_lane(lane)
    for key in range(200):
        sched.push(key, long)
    assert len(sched.all()) == 2


def test_no_more_jobs_are_booked_for_a_slot_than_allowed(sched: Sched) -> None:
    short = sched.add_class(1)
    sched.add_lane(slots=3, ahead=7, horizon_ns=SECOND)
    for key in range(100):
        sched.push(key, short)
    assert len(sched.all()) == 21


def test_a_lane_takes_no_more_bytes_than_allowed_but_one_larger_job_goes_alone(sched: Sched) -> None:
    sched.add_class()
    sched.add_lane(slots=10, max_bytes=100)
    for key, size in enumerate([2**40, 0, 40, 60, 1, 0]):
        sched.push(key, size=size)
    large = sched.next()
    assert large == Job(0, UNKNOWN_NS, LARGEST, 0, 0)
    assert sched.next() is None, "not even an empty one"
    sched.done(large)
    assert sched.all() == [(1, 0), (2, 0), (3, 0)]
    assert sched.ready == 2


def test_durations_are_learnt_with_a_weight_of_an_eighth(sched: Sched) -> None:
    number = sched.add_class()
    lane = sched.add_lane()
    assert sched.expect(number) == 0
    mean = 0.0
    for duration in [80_000, 80_000, 16_000, 160_000, 1, 1, 1]:
        sched.push(1, number)
        job = sched.next()
        assert job is not None
        sched.done(job, duration)
        cost = duration + OVERHEAD_NS
        mean = mean + (cost - mean) / 8 if mean else cost
        assert abs(sched.expect(number) - mean) < 8
    assert sched.booked(lane) == 0


def test_a_job_that_was_not_sent_teaches_nothing(sched: Sched) -> None:
    number = sched.add_class()
    lane = sched.add_lane()
    sched.push(1, number)
    job = sched.next()
    assert job is not None
    sched.done(job)
    assert (sched.expect(number), sched.booked(lane), sched.least_load) == (0, 0, 0)


def test_a_hint_counts_until_there_are_measurements(sched: Sched) -> None:
    number = sched.add_class(5_000)
    sched.add_lane()
    sched.hint(number, 6_000)
    assert sched.expect(number) == 6_000
    sched.push(1, number)
    job = sched.next()
    assert job == Job(1, 6_000, 0, 0, number)
    sched.done(job, 20_000)
    assert sched.expect(number) == 20_000 + OVERHEAD_NS
    sched.hint(number, 7)
    assert sched.expect(number) == 20_000 + OVERHEAD_NS


def test_the_number_of_a_dropped_class_comes_again_and_knows_nothing(sched: Sched) -> None:
    first, second = sched.add_class(5_000), sched.add_class(6_000)
    sched.drop_class(first)
    assert sched.expect(second) == 6_000
    assert sched.add_class() == first
    assert sched.expect(first) == 0


def test_a_job_gives_back_what_was_booked_even_when_more_is_known_by_then(sched: Sched) -> None:
    number = sched.add_class()
    lane = sched.add_lane(slots=2)
    sched.push(1, number)
    sched.push(2, number)
    first, second = sched.next(), sched.next()
    assert first is not None
    assert second is not None
    sched.done(first, 9 * SECOND)
    assert sched.least_load == UNKNOWN_NS // 2
    sched.done(second, 1)
    assert (sched.least_load, sched.booked(lane)) == (0, 0)
    assert sched.check() == OK


def test_a_lane_whose_slots_are_gone_gets_nothing_and_keeps_what_it_has(sched: Sched) -> None:
    known = sched.add_class(1_000)
    first, second = sched.add_lane(slots=2), sched.add_lane(slots=1)
    sched.push(1, known)
    job = sched.next()
    assert job is not None
    assert job.lane == first
    sched.set_slots(first, 0)
    assert sched.slots == 1
    for key in range(5):
        sched.push(key, known)
    assert {lane for _, lane in sched.all()} == {second}
    assert (sched.booked(first), sched.booked(second)) == (1, 5)
    sched.done(job, 10)
    sched.set_slots(first, 4)
    assert sched.slots == 5
    sched.push(9, known)
    assert sched.all() == [(9, first)]


def test_a_cleared_lane_is_as_new(sched: Sched) -> None:
    sched.add_class()
    lane = sched.add_lane(slots=2)
    for key in range(4):
        sched.push(key)
    assert len(sched.all()) == 2
    sched.clear_lane(lane)
    assert (sched.booked(lane), sched.least_load) == (0, 0)
    assert len(sched.all()) == 2


def test_forgotten_jobs_do_not_come_back(sched: Sched) -> None:
    sched.add_class()
    sched.add_lane(slots=100)
    for key in range(100):
        sched.push(key, priority=key % 5, first=key % 3 == 0)
    sched.forget_ready()
    assert (sched.ready, sched.next()) == (0, None)
    sched.push(500, priority=3)
    assert sched.all() == [(500, 0)]


def test_the_least_load_counts_lanes_without_credit(sched: Sched) -> None:
    """The lane that has least may be one that takes no more now: it will be idle first all the same."""
    known = sched.add_class(10_000)
    full, free = sched.add_lane(max_bytes=100), sched.add_lane(max_bytes=1000)
    for key, size in [(0, 100), (1, 10), (2, 10)]:
        sched.push(key, known, size=size)
    assert sched.all() == [(0, full), (1, free), (2, free)]
    assert sched.least_load == 10_000


def test_a_lane_gets_work_as_soon_as_its_credit_suffices(sched: Sched) -> None:
    """A job was too long to be sent ahead; a short one that is more urgent is not."""
    long, short = sched.add_class(SECOND), sched.add_class(1_000)
    lane = sched.add_lane(ahead=10, horizon_ns=2 * SECOND - 1)
    sched.push(1, long)
    sched.push(2, long)
    assert sched.all() == [(1, lane)]
    sched.push(3, short, priority=1)
    assert sched.all() == [(3, lane)], "MT_E_AGAIN means that no lane has credit"


def test_durations_of_items_are_weighted_by_their_number(sched: Sched) -> None:
    number = sched.add_class()
    sched.add_lane()
    sched.push_job(1, items=10**6, class_index=number)
    job = sched.next()
    assert job is not None
    assert (job.items, job.units, job.cost_ns) == (1, 1, UNKNOWN_NS), "of what is not known at all, one"
    sched.done(job, 20_000)
    assert sched.expect(number) == 20_000 + OVERHEAD_NS
    sched.push_job(1, items=10**6 - 1, class_index=number)
    job = sched.next()
    assert job is not None
    assert job.items == CHUNK_NS // 21_000
    sched.done(job, job.items * 100)
    assert sched.expect(number) < 130, "one item in a hurry says little"


def test_a_lane_that_cuts_gets_several_slots_worth_and_never_more_than_twice_its_slots(sched: Sched) -> None:
    number = sched.add_class(CHUNK_NS // 10)
    lane, other = sched.add_lane(slots=8, cuts=True), sched.add_lane(slots=2)
    left, jobs = 10**6, []
    sched.push_job(1, items=left, class_index=number)
    while (job := sched.next()) is not None:
        jobs.append(job)
        left -= job.items
        sched.push_job(1, items=left, class_index=number, first=True)
    assert [(job.units, job.items) for job in jobs if job.lane == lane] == [(4, 40)] * 4
    assert [(job.units, job.items) for job in jobs if job.lane == other] == [(1, 10)] * 4
    assert lib.mt_sched_excess(sched.handle, lane) == 8
    for job in jobs:
        sched.done(job)
    assert lib.mt_sched_idle(sched.handle, lane) == 8


def test_the_last_job_of_items_is_cut_smaller_and_smaller(sched: Sched) -> None:
    number = sched.add_class(1000)
    for _ in range(4):
        sched.add_lane()
    left, sizes = 120_000, []
    while left:
        sched.push_job(1, items=left, class_index=number)
        job = sched.next()
        assert job is not None
        sizes.append(job.items)
        left -= job.items
        sched.done(job, job.items * 1000)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 120_000 // 8
    assert sizes[-2] <= LEAST_CHUNK_NS // 1000
    assert sum(sizes) == 120_000
    sched.push_job(1, items=120_000, class_index=number)
    sched.push(2, number)
    job = sched.next()
    assert job is not None
    assert job.items > sizes[0], "something else is ready: nobody will be idle"
    sched.forget_ready()


def test_jobs_that_stay_are_not_given_back(sched: Sched) -> None:
    sched.add_class()
    lane = sched.add_lane()
    for key, stays in enumerate([False, True, False, True]):
        sched.push_job(key, items=5, origin=lane, stays=stays)
    found = []
    key = ffi.new("uint64_t *")
    while lib.mt_sched_take_last(sched.handle, lane, -(2**31), 2**32, key) == OK:
        found.append(key[0])
    assert found == [2, 0]
    assert sched.ready == 2


def test_hundreds_of_lanes_are_filled_evenly(sched: Sched) -> None:
    known = sched.add_class(1_000)
    for _ in range(300):
        sched.add_lane()
    for key in range(900):
        sched.push(key, known)
    assert len(sched.all()) == 900
    assert {sched.booked(lane) for lane in range(300)} == {3}
    assert sched.check() == OK


@pytest.mark.parametrize("seed", range(5))
def test_lanes_can_be_taken_out_in_any_order_whatever_their_load(sched: Sched, seed: int) -> None:
    rng = Random(seed)
    classes = [sched.add_class(10**k) for k in range(8)]
    lanes = [sched.add_lane(slots=1) for _ in range(60)]
    load = [0] * 60
    for key in range(400):
        sched.push(key, rng.choice(classes))
    jobs = []
    while (job := sched.next()) is not None:
        jobs.append(job)
        load[job.lane] += job.cost_ns
    for job in rng.sample(jobs, 250):
        sched.done(job)
        load[job.lane] -= job.cost_ns
    for lane in rng.sample(lanes, 59):
        sched.set_slots(lane, 0)
        lanes.remove(lane)
        assert sched.check() == OK
        assert sched.least_load == min(load[k] for k in lanes)
        sched.push(1000, classes[0])
        job = sched.next()
        assert job is not None
        assert job.lane == min(lanes, key=lambda k: (load[k], k))
        sched.done(job)


def test_without_memory_nothing_is_added_and_nothing_is_lost() -> None:
    def scenario(memory: Memory) -> None:
        sched = Sched(memory)
        for number in range(20):
            assert sched.add_lane(slots=1) == number
            assert sched.add_class(1_000 + number) == number
            assert sched.slots == number + 1
        assert [sched.expect(number) for number in range(20)] == [1_000 + number for number in range(20)]
        for key in range(150):
            sched.push(key, key % 20, priority=key % 2 * (key % 10), first=key % 7 == 0)
            assert sched.ready == key + 1
            assert sched.check() == OK
        found = sched.all()
        assert sorted(key for key, _ in found) == list(range(150))
        assert sum(sched.booked(lane) for lane in range(20)) == 150
        sched.destroy()

    # itself; lanes, heap and classes, which grow twice each; a list of six priorities, a queue for each; one grows
    assert each_allocation_failing(scenario) == 1 + 3 * 3 + 1 + 6 + 1
