"""The scheduler with Python's types, for its tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from memory import OK, Memory

from mpitask.native import ffi, lib

AGAIN = lib.MT_E_AGAIN
SENTINEL = 0xDEAD
OVERHEAD_NS, UNKNOWN_NS = 1_000, 1_000_000
CHUNK_NS, LEAST_CHUNK_NS, MAX_COST_NS = 30_000_000, 4_000_000, 2**53
SHARES = 1024
LONG_AHEAD = SHARES // 8
LONG_CALL_NS = 5_000_000
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

    def learn(self, number: int, items: int, each_ns: int) -> None:
        """What `items` that have ended teach. There must be a lane with credit."""
        self.push(0, items=items, chunk=items, class_index=number)
        job = self.next()
        assert job is not None
        self.done(job, items * each_ns - OVERHEAD_NS)

    def drop_class(self, number: int) -> None:
        lib.mt_sched_drop_class(self.handle, number)

    def expect(self, number: int) -> int:
        return int(lib.mt_sched_expect(self.handle, number))

    def hint(self, number: int, duration_ns: int) -> None:
        lib.mt_sched_hint(self.handle, number, duration_ns)

    def push(
        self, key: int, class_index: int = 0, priority: int = 0, size: int = 0, *, age: int = 0, **more: Any
    ) -> int:
        """Returns the age that it has got."""
        fields = {"key": key, "class_index": class_index, "priority": priority, "bytes": size, "age": age}
        ready = ffi.new("mt_ready *", {"origin": NO_LANE, **fields, **more})
        assert self.memory.attempt(partial(lib.mt_sched_push, self.handle, ready), self.unchanged) == OK
        return int(ready.age)

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

    def come_back_in_part(self, job: Job, items: int, units: int, cost_ns: int) -> None:
        fields = {name: getattr(job, name) for name in FIELDS} | {"items": items, "units": units, "cost_ns": cost_ns}
        lib.mt_sched_return_some(self.handle, ffi.new("mt_assignment *", fields))

    def set_hungry(self, lane: int, slots: int) -> None:
        lib.mt_sched_set_hungry(self.handle, lane, slots)

    def set_overdue(self, lane: int) -> None:
        lib.mt_sched_set_overdue(self.handle, lane)

    def first_priority(self) -> tuple[int, int] | None:
        """The priority that is next, and how many have it."""
        priority, n = ffi.new("int32_t *", 77), ffi.new("uint64_t *", SENTINEL)
        if lib.mt_sched_first_priority(self.handle, priority, n) == AGAIN:
            assert (priority[0], n[0]) == (77, SENTINEL)
            return None
        return int(priority[0]), int(n[0])

    def take(self, below: int) -> int | None:
        key = ffi.new("uint64_t *", SENTINEL)
        if lib.mt_sched_take(self.handle, lib.MT_NO_LANE, -(2**31), below, key) == AGAIN:
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

    @property
    def least_ahead(self) -> int:
        return int(lib.mt_sched_least_ahead(self.handle))
