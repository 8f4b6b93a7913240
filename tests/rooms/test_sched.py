"""The scheduler: order, credit, learning, jobs of many items; no memory."""

from __future__ import annotations

from random import Random

import pytest
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing
from scheduler import CHUNK_NS, LEAST_CHUNK_NS, NO_LANE, OVERHEAD_NS, SECOND, UNKNOWN_NS, Job, Sched

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG


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
    sched.push(10, priority=0, age=-1)
    sched.push(11, priority=0, age=-1)
    sched.push(12, priority=-1, age=-2)
    assert [key for key, _ in sched.all()] == [1, 11, 10, 0, 2, 12]


def test_jobs_that_come_back_go_where_they_were(sched: Sched) -> None:
    """Of two lanes, one after the other, the newest first."""
    sched.add_class()
    lanes = [sched.add_lane(slots=100), sched.add_lane(slots=100)]
    ages = [sched.push(key) for key in range(200)]
    assert ages == list(range(1, 201))
    taken = {}
    while (job := sched.next()) is not None:
        taken[job.key] = job
    assert {job.lane for job in taken.values()} == set(lanes)
    later = [sched.push(key) for key in range(200, 300)]
    assert later == list(range(201, 301))
    for lane in lanes:
        for key in sorted((key for key, job in taken.items() if job.lane == lane), reverse=True):
            sched.come_back(taken[key])
            assert sched.push(key, age=ages[key]) == ages[key]
            assert sched.check() == OK
    assert [key for key, _ in sched.all()] == list(range(200)), "there are 200 slots"


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
        sched.push(key, age=-1 if first else 0)
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
        sched.push(key, priority=key % 5, age=-1 if key % 3 == 0 else 0)
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


def test_durations_of_items_are_weighted_by_their_number(sched: Sched) -> None:
    number = sched.add_class()
    sched.add_lane()
    sched.push(1, items=10**6, class_index=number)
    job = sched.next()
    assert job is not None
    assert (job.items, job.units, job.cost_ns) == (1, 1, UNKNOWN_NS), "of what is not known at all, one"
    sched.done(job, 20_000)
    assert sched.expect(number) == 20_000 + OVERHEAD_NS
    sched.push(1, items=10**6 - 1, class_index=number, chunk=1428)
    job = sched.next()
    assert job is not None
    assert job.items == 1428
    sched.done(job, job.items * 100)
    assert sched.expect(number) < 130, "one item in a hurry says little"


def test_so_many_items_at_a_time_as_have_ended(sched: Sched) -> None:
    """The first items to end are the short ones: what they took says nothing of a thousand others."""
    number = sched.add_class()
    sched.add_lane()
    left, sizes, known = 10**9, [], 0
    while sched.expect(number) == 0 or sizes[-1] < CHUNK_NS // (2 * sched.expect(number)):
        sched.push(1, items=left, class_index=number)
        job = sched.next()
        assert job is not None
        assert job.items <= max(1, known // 2)
        sched.done(job, job.items * 100)
        sizes.append(job.items)
        known += job.items
        left -= job.items
    assert sizes == sorted(sizes)
    assert len(sizes) < 100, "it does not take long, either"


def test_a_lane_that_cuts_gets_several_slots_worth_and_never_more_than_twice_its_slots(sched: Sched) -> None:
    number = sched.add_class()
    lane, other = sched.add_lane(slots=8, cuts=True), sched.add_lane(slots=2)
    sched.learn(number, 20, CHUNK_NS // 10)
    left, jobs = 10**6, []
    age = sched.push(1, items=left, class_index=number)
    while (job := sched.next()) is not None:
        jobs.append(job)
        left -= job.items
        sched.push(1, items=left, class_index=number, age=age)
    assert [(job.units, job.items) for job in jobs if job.lane == lane] == [(4, 40)] * 4
    assert [(job.units, job.items) for job in jobs if job.lane == other] == [(1, 10)] * 4
    assert lib.mt_sched_excess(sched.handle, lane) == 8
    for job in jobs:
        sched.done(job)
    assert lib.mt_sched_lane_idle(sched.handle, lane) == 8


def test_the_last_job_of_items_is_cut_smaller_and_smaller(sched: Sched) -> None:
    number = sched.add_class()
    for _ in range(4):
        sched.add_lane()
    sched.learn(number, 10**6, 1000)
    left, sizes = 120_000, []
    while left:
        sched.push(1, items=left, class_index=number)
        job = sched.next()
        assert job is not None
        sizes.append(job.items)
        left -= job.items
        sched.done(job, job.items * 1000)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 120_000 // 8
    assert sizes[-2] <= LEAST_CHUNK_NS // 1000
    assert sum(sizes) == 120_000
    sched.push(1, items=120_000, class_index=number)
    sched.push(2, number)
    job = sched.next()
    assert job is not None
    assert job.items > sizes[0], "something else is ready: nobody will be idle"
    sched.forget_ready()


def test_jobs_that_stay_are_not_given_back(sched: Sched) -> None:
    sched.add_class()
    lane = sched.add_lane()
    for key, stays in enumerate([False, True, False, True]):
        sched.push(key, items=5, origin=lane, stays=stays)
    found = []
    key = ffi.new("uint64_t *")
    while lib.mt_sched_take(sched.handle, lane, -(2**31), 2**32, key) == OK:
        found.append(key[0])
    assert found == [0, 2]
    assert sched.ready == 2


@pytest.mark.parametrize("taken", range(9))
def test_a_job_taken_out_of_the_middle_leaves_the_order_of_the_others(sched: Sched, taken: int) -> None:
    sched.add_class()
    lane = sched.add_lane(slots=9)
    for key in range(9):
        sched.push(key, origin=lane, stays=key != taken)
    key = ffi.new("uint64_t *")
    assert lib.mt_sched_take(sched.handle, lane, -(2**31), 2**32, key) == OK
    assert key[0] == taken
    assert [key for key, _ in sched.all()] == [key for key in range(9) if key != taken]


def test_the_way_up_gets_the_oldest_of_the_lowest_band_that_did_not_come_from_there(sched: Sched) -> None:
    sched.add_class()
    up = sched.add_lane(slots=9)
    lib.mt_sched_set_up(sched.handle, up)
    for key, (priority, origin) in enumerate([(0, up), (0, up), (lib.MT_BAND, NO_LANE), (0, NO_LANE), (0, NO_LANE)]):
        sched.push(key, priority=priority, origin=origin)
    assert sched.slots == 0
    assert sched.next() is None
    assert [job and (job.key, job.lane) for job in (sched.next(up) for _ in range(4))] == [
        (3, up),
        (4, up),
        (2, up),
        None,
    ]
    here = sched.add_lane(slots=9)
    assert sched.all() == [(0, here), (1, here)]


def test_what_is_given_back_is_what_would_be_next_of_the_lowest_band(sched: Sched) -> None:
    sched.add_class()
    for key, priority in enumerate([lib.MT_BAND, 0, 5, 5, -7, 0]):
        sched.push(key, priority=priority)
    assert [sched.take(6) for _ in range(3)] == [2, 3, 1]
    assert sched.take(0) == 4
    assert sched.take(0) is None
    assert [sched.take(2**32) for _ in range(3)] == [5, 0, None]


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
            sched.push(key, key % 20, priority=key % 2 * (key % 10), age=-1 if key % 7 == 0 else 0)
            assert sched.ready == key + 1
            assert sched.check() == OK
        found = sched.all()
        assert sorted(key for key, _ in found) == list(range(150))
        assert sum(sched.booked(lane) for lane in range(20)) == 150
        sched.destroy()

    # itself; lanes, heap and classes, which grow twice each; a list of six priorities, a queue for each; one grows
    assert each_allocation_failing(scenario) == 1 + 3 * 3 + 1 + 6 + 1
