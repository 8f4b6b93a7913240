"""The scheduler against a model of its policy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, same_every_time
from scheduler import (
    CHUNK_NS,
    LARGEST,
    LEAST_CHUNK_NS,
    LONG_AHEAD,
    LONG_CALL_NS,
    MAX_COST_NS,
    MILLISECOND,
    OVERHEAD_NS,
    SECOND,
    SHARES,
    UNKNOWN_NS,
    Job,
    Sched,
)

from mpitask.native import lib

pytestmark = SHRINKING_TAKES_LONG


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
    hungry: int = 0

    @property
    def load(self) -> int:
        return sum(job.cost_ns for job in self.jobs) // max(1, self.slots)

    @property
    def units(self) -> int:
        return sum(job.units for job in self.jobs)

    @property
    def left(self) -> int:
        """Of the load, what is beyond its slots."""
        excess = 0 if self.hungry else max(0, self.units - self.slots)
        return self.load // self.units * excess if excess else 0

    def most_units(self, ahead: int, is_long: bool) -> int:
        beyond = self.slots * ahead / SHARES
        return self.slots + (math.ceil(beyond) if self.cuts or not is_long else math.floor(beyond))

    def gives_back(self) -> None:
        if self.units < self.slots:
            self.hungry = 0

    def has_credit(self, known: bool, cost_ns: int, size: int, ahead: int, are_items: bool) -> bool:
        """`ahead`: in shares."""
        if self.slots == 0:
            return False
        if self.jobs and sum(job.bytes for job in self.jobs) + size > self.max_bytes:
            return False
        if self.units < self.slots or self.hungry:
            return True
        if not known or self.overdue:
            return False
        if are_items:
            return self.units < self.most_units(ahead, cost_ns > CHUNK_NS)
        if self.units >= self.slots * self.ahead:
            return False
        if sum(job.cost_ns for job in self.jobs) + cost_ns <= self.horizon_ns * self.slots:
            return True
        if not self.cuts or self.units >= self.slots + self.slots * ahead // SHARES:
            return False
        return sum(job.cost_ns for job in self.jobs) // self.slots // 2 <= cost_ns


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
    age: int = 0

    @property
    def units(self) -> int:
        return -(-self.items // (self.chunk or 1)) if self.items else 1


class SchedAgainstModel(RuleBasedStateMachine):
    """Every assignment, and all that can be asked, after every step."""

    @initialize()
    def start(self) -> None:
        self.memory = Memory()
        self.sched = Sched(self.memory)
        self.lanes: list[Lane] = []
        self.classes: dict[int, Class] = {}
        self.queues: dict[int, list[Waiting]] = {}
        self.keys = self.last_age = 0
        self.taken: dict[int, tuple[int, Waiting]] = {}
        for slots, cuts in (1, False), (40, True):
            self.add_lane(slots, 10, SECOND, 2**40, cuts)
        for expect_ns in MILLISECOND, SECOND:
            self.add_class(expect_ns)

    @property
    def jobs(self) -> list[Job]:
        return [job for lane in self.lanes for job in lane.jobs]

    @rule(
        slots=st.sampled_from([0, 1, 1, 2, 5, 40]),
        ahead=st.sampled_from([1, 2, 10]),
        horizon_ns=st.sampled_from([0, 100_000, SECOND]),
        max_bytes=st.sampled_from([0, 1000, 2**40]),
        cuts=st.booleans(),
    )
    def add_lane(self, slots: int, ahead: int, horizon_ns: int, max_bytes: int, cuts: bool) -> None:
        assert self.sched.add_lane(slots, ahead, horizon_ns, max_bytes, cuts) == len(self.lanes)
        self.lanes.append(Lane(slots, ahead, horizon_ns, max_bytes, cuts))

    @rule(hint_ns=st.sampled_from([0, 0, 1, 10_000, MILLISECOND, SECOND]))
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
        ahead=st.sampled_from([0, 0, 7, lib.MT_MAX_AGE, -3]),
    )
    def push(self, seed: int, times: int, priorities: list[int], ahead: int) -> None:
        """`ahead`: 0, they are new; else their ages were given elsewhere, and below 0 many have the same."""
        rng = Random(seed)
        for _ in range(times):
            self.keys += 1
            priority = rng.choice([0, 0, 1, *priorities])
            size = rng.choice([0, 0, 10, 600, 1001, LARGEST, 2**40])
            age = rng.randrange(1, 5) if ahead < 0 else ahead and self.last_age + rng.randrange(ahead) + 1
            self.push_waiting(Waiting(self.keys, rng.choice(sorted(self.classes)), size, age=age), priority)

    @precondition(lambda self: self.classes)
    @rule(
        seed=st.integers(0, 999),
        items=st.sampled_from([1, 2, 50, 1_000_000, 2**64 - 1]),
        chunk=st.sampled_from([0, 0, 1, 7, 10_000]),
    )
    def push_items(self, seed: int, items: int, chunk: int) -> None:
        self.keys += 1
        rng = Random(seed)
        waiting = Waiting(self.keys, rng.choice(sorted(self.classes)), rng.choice([0, 10, 600]), items, chunk)
        self.push_waiting(waiting, rng.choice([0, 0, 1]))

    @precondition(lambda self: self.classes)
    @rule(
        seed=st.integers(0, 999),
        items=st.sampled_from([1, 30, 45, 60, 500]),
        chunk=st.sampled_from([0, 0, 3]),
        hungry=st.sampled_from([0, 0, 2]),
    )
    def only_items(self, seed: int, items: int, chunk: int, hungry: int) -> None:
        """Nothing else is in the way: until no lane has credit for more."""
        self.forget_ready()
        self.push_items(seed, items, chunk)
        self.next(80)
        for seed_of_lane in range(hungry):
            self.set_hungry(seed + seed_of_lane, 3)
        self.next(80)

    def push_waiting(self, waiting: Waiting, priority: int) -> None:
        age = self.sched.push(
            waiting.key,
            waiting.class_index,
            priority,
            waiting.size,
            items=waiting.items,
            chunk=waiting.chunk,
            age=waiting.age,
        )
        assert age == (waiting.age or self.last_age + 1)
        if age <= lib.MT_MAX_AGE:
            self.last_age = max(self.last_age, age)
        queue = self.queues.setdefault(priority, [])
        queue.insert(0, replace(waiting, size=min(waiting.size, LARGEST), age=age))
        queue.sort(key=lambda each: each.age)  # of equal ages the newest is first

    def ahead(self, job: Waiting, cost_ns: int, priority: int) -> int:
        if job.items and cost_ns <= CHUNK_NS:
            return SHARES
        everybody = sum(lane.slots for lane in self.lanes)
        if not job.items:
            enough = everybody + -(-everybody * LONG_AHEAD // SHARES)
            return LONG_AHEAD if cost_ns > LONG_CALL_NS and len(self.queues[priority]) >= enough else 0
        waiting = sum(each.units for queue in self.queues.values() for each in queue) % 2**64
        more = max(0, waiting - everybody)
        return LONG_AHEAD if more * SHARES >= everybody * LONG_AHEAD else more * SHARES // everybody

    def fit(self, lane: Lane, job: Waiting, mean_ns: int, is_last: bool, ahead: int) -> tuple[int, int]:
        """Items and units: what the contract says of jobs of items."""
        slots = lane.slots if lane.cuts else 1
        ended = self.classes[job.class_index].items // 64
        chunk = job.chunk or (max(1, min(CHUNK_NS // mean_ns, ended // 2)) if mean_ns else 1)
        is_long = (job.chunk or 1) * mean_ns > CHUNK_NS
        units = max(1, slots // (16 if is_long else 2))
        if is_long and ahead < LONG_AHEAD:
            units = max(1, min(units, max(lane.most_units(ahead, is_long) - lane.units, lane.hungry)))
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
        cost_ns = (job.chunk or 1) * mean_ns if job.items else mean_ns or UNKNOWN_NS
        known = mean_ns != 0
        ahead = self.ahead(job, cost_ns if known else 0, max(busy))
        able = [
            i for i, lane in enumerate(self.lanes) if lane.has_credit(known, cost_ns, job.size, ahead, job.items > 0)
        ]
        if not able:
            return None
        lane = min(able, key=lambda i: (self.lanes[i].load, i))
        items, units = 0, 1
        if job.items:
            items, units = self.fit(self.lanes[lane], job, mean_ns, sum(map(len, self.queues.values())) == 1, ahead)
            cost_ns = min(MAX_COST_NS, items * mean_ns if known else units * UNKNOWN_NS)
        self.queues[max(busy)].pop(0)
        if self.lanes[lane].units >= self.lanes[lane].slots:
            self.lanes[lane].hungry = max(0, self.lanes[lane].hungry - units)
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
            self.taken[expected.key] = priority, before[priority]
            if expected.items < before[priority].items:  # the caller's part: the rest is ready again
                left = before[priority].items - expected.items
                self.push_waiting(replace(before[priority], items=left), priority)

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
            self.lanes[job.lane].gives_back()
            self.lanes[job.lane].overdue = False
            if duration_ns:
                self.classes[job.class_index].learn(duration_ns, job.items)

    @precondition(lambda self: self.lanes)
    @rule(seed=st.integers(0, 999), slots=st.sampled_from([0, 1, 3]))
    def set_slots(self, seed: int, slots: int) -> None:
        number = Random(seed).randrange(len(self.lanes))
        self.sched.set_slots(number, slots)
        self.lanes[number].slots = slots
        self.lanes[number].hungry = 0

    @precondition(lambda self: self.lanes)
    @rule(seed=st.integers(0, 999))
    def clear_lane(self, seed: int) -> None:
        number = Random(seed).randrange(len(self.lanes))
        self.sched.clear_lane(number)
        self.lanes[number].jobs.clear()
        self.lanes[number].hungry = 0
        self.lanes[number].overdue = False

    @precondition(lambda self: self.lanes)
    @rule(seed=st.integers(0, 999))
    def set_overdue(self, seed: int) -> None:
        number = Random(seed).randrange(len(self.lanes))
        self.sched.set_overdue(number)
        self.lanes[number].overdue = True

    @rule(seed=st.integers(0, 2**32 - 1), times=st.sampled_from([1, 3, 20]))
    def come_back(self, seed: int, times: int) -> None:
        """Those that are one thing are ready again."""
        rng = Random(seed)
        for _ in range(min(times, len(self.jobs))):
            job = rng.choice(self.jobs)
            self.sched.come_back(job)
            self.lanes[job.lane].jobs.remove(job)
            self.lanes[job.lane].gives_back()
            if job.items == 0:
                priority, waiting = self.taken[job.key]
                self.push_waiting(waiting, priority)

    @rule(seed=st.integers(0, 2**32 - 1))
    def come_back_in_part(self, seed: int) -> None:
        rng = Random(seed)
        if divisible := [job for job in self.jobs if job.items > 1]:
            job = rng.choice(divisible)
            items = rng.randrange(1, job.items)
            units, cost_ns = items * job.units // job.items, job.cost_ns // job.items * items
            self.sched.come_back_in_part(job, items, units, cost_ns)
            jobs = self.lanes[job.lane].jobs
            jobs[jobs.index(job)] = replace(
                job, items=job.items - items, units=job.units - units, cost_ns=job.cost_ns - cost_ns
            )
            self.lanes[job.lane].gives_back()

    @precondition(lambda self: self.lanes)
    @rule(seed=st.integers(0, 999), slots=st.sampled_from([0, 1, 3, 1000]))
    def set_hungry(self, seed: int, slots: int) -> None:
        number = Random(seed).randrange(len(self.lanes))
        self.sched.set_hungry(number, slots)
        lane = self.lanes[number]
        if lane.units >= lane.slots:
            lane.hungry = min(slots, lane.slots)

    @rule(times=st.sampled_from([1, 5]), below=st.sampled_from([-3, 0, 1, 2, 2**31, 2**32, -(2**32)]))
    def take(self, times: int, below: int) -> None:
        for _ in range(times):
            busy = [priority for priority, queue in self.queues.items() if queue and priority < below]
            bands = {priority: (priority + lib.MT_BAND // 2) // lib.MT_BAND for priority in busy}
            lowest = [priority for priority in busy if bands[priority] == min(bands.values())]
            expected = self.queues[max(lowest)].pop(0).key if lowest else None
            assert self.sched.take(below) == expected

    @precondition(lambda self: sum(map(len, self.queues.values())) > 100)
    @rule()
    def forget_many(self) -> None:
        self.forget_ready()

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
            assert lib.mt_sched_lane_idle(self.sched.handle, number) == (-ahead if ahead < 0 else lane.hungry)
            assert lib.mt_sched_excess(self.sched.handle, number) == (0 if lane.hungry else max(0, ahead))
            assert lib.mt_sched_load(self.sched.handle, number) == lane.load
        for number, known in self.classes.items():
            assert self.sched.expect(number) == known.mean_ns
        assert self.sched.least_load == min((lane.load for lane in self.lanes if lane.slots), default=0)
        assert self.sched.least_ahead == min((lane.left for lane in self.lanes if lane.slots), default=0)

    def teardown(self) -> None:
        if hasattr(self, "sched"):
            self.sched.destroy()
            assert self.memory.live == 0
            self.memory.close()


TestSchedAgainstModel = SchedAgainstModel.TestCase
TestSchedAgainstModel.settings = same_every_time(50, steps=40)
