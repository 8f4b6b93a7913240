"""What the scheduler sends ahead of free slots."""

from __future__ import annotations

from memory import SHRINKING_TAKES_LONG
from scheduler import LARGEST, SECOND, UNKNOWN_NS, Job, Sched

pytestmark = SHRINKING_TAKES_LONG


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


def test_work_lies_ahead_beyond_what_slots_run(sched: Sched) -> None:
    known = sched.add_class(10_000)
    one, two = sched.add_lane(slots=1), sched.add_lane(slots=2)
    jobs = []
    for key, ahead in enumerate([0, 0, 0, 0, 5_000, 10_000, 10_000, 15_000, 20_000]):
        sched.push(key, known)
        jobs.append(sched.next())
        assert sched.least_ahead == ahead, key
    assert (sched.booked(one), sched.booked(two)) == (3, 6)
    sched.set_hungry(two, 1)
    assert sched.least_ahead == 0, "one of its slots has nothing to do"
    sched.set_hungry(two, 0)
    sched.set_slots(one, 0)
    assert sched.least_ahead == 20_000
    sched.clear_lane(two)
    assert sched.least_ahead == 0
    sched.set_slots(two, 0)
    assert sched.least_ahead == 0


def add_ranks(sched: Sched, *slots: int) -> list[int]:
    return [sched.add_lane(slots=n, horizon_ns=10_000_000, cuts=True) for n in slots]


def test_a_few_long_jobs_lie_ahead_behind_many_slots_while_there_are_enough_for_all(sched: Sched) -> None:
    known = sched.add_class(100_000_000)
    (node,), worker = add_ranks(sched, 16), sched.add_lane(slots=1, horizon_ns=10_000_000)
    for key in range(17 + 2 + 17 + 3):
        sched.push(key, known)
    sched.all()
    assert (sched.booked(node), sched.booked(worker), sched.ready) == (18, 1, 20), "an eighth more; none for a worker"
    sched.clear_lane(node)
    sched.clear_lane(worker)
    sched.forget_ready()
    for key in range(17 + 19):
        sched.push(key, known)
    sched.all()
    assert (sched.booked(node), sched.booked(worker), sched.ready) == (16, 1, 19), "the last ones wait here"


def test_a_rank_of_a_few_slots_gets_no_long_job_ahead(sched: Sched) -> None:
    known = sched.add_class(100_000_000)
    lanes = add_ranks(sched, 1, 2, 7)
    for key in range(100):
        sched.push(key, known)
    sched.all()
    assert [sched.booked(lane) for lane in lanes] == [1, 2, 7]


def test_a_shorter_job_is_not_put_behind_long_ones(sched: Sched) -> None:
    """It would have to wait for them; here it goes to whichever slot is free first."""
    hour, second, blink = (sched.add_class(each) for each in (3600 * SECOND, SECOND, 1_000_000))
    (lane,) = add_ranks(sched, 16)
    for key in range(16):
        sched.push(key, hour)
    assert all(sched.next() is not None for _ in range(16))
    for key in range(100, 150):
        sched.push(key, blink if key % 2 else second)
    assert sched.next() is None
    sched.push(99, hour, age=-1)
    for key in range(200, 250):
        sched.push(key, hour)
    job = sched.next()
    assert job is not None
    assert (job.key, job.lane) == (99, lane), "another hour may wait there, whatever was refused before"
    assert sched.next() is None


def test_an_urgent_long_job_takes_the_first_free_slot(sched: Sched) -> None:
    known = sched.add_class(100 * SECOND)
    lanes = add_ranks(sched, 8, 8)
    for key in range(60):
        sched.push(key, known)
    jobs = []
    while (job := sched.next()) is not None:
        jobs.append(job)
    assert [sched.booked(lane) for lane in lanes] == [9, 9]
    sched.push(100, known, priority=9)
    sched.done(jobs[0])
    assert sched.next() is None, "that slot has its next one; behind it the urgent one would wait"
    sched.done(jobs[2])
    urgent = sched.next()
    assert urgent is not None
    assert urgent.key == 100


def test_a_lane_gets_work_as_soon_as_its_credit_suffices(sched: Sched) -> None:
    """A job was too long to be sent ahead; a short one that is more urgent is not."""
    long, short = sched.add_class(SECOND), sched.add_class(1_000)
    lane = sched.add_lane(ahead=10, horizon_ns=2 * SECOND - 1)
    sched.push(1, long)
    sched.push(2, long)
    assert sched.all() == [(1, lane)]
    sched.push(3, short, priority=1)
    assert sched.all() == [(3, lane)], "MT_E_AGAIN means that no lane has credit"
