"""What an engine does while there is nothing to do."""

from __future__ import annotations

import time

import mpitask
from mpitask import Engine


def looks_per_second(engine: Engine, seconds: float) -> float:
    before, start = engine.stats()["steps"], time.monotonic()
    time.sleep(seconds)  # the length of the measurement, not a wait for something
    return (engine.stats()["steps"] - before) / (time.monotonic() - start)


def test_an_idle_engine_sleeps_and_a_busy_one_wakes_at_once() -> None:
    with mpitask.load(workers=2) as engine:
        app = mpitask.python_app(abs)
        assert [f.result(timeout=60) for f in [app(-i) for i in range(100)]] == list(range(100))
        looks_per_second(engine, 0.1)
        assert looks_per_second(engine, 1.0) < 60  # asleep but for a guard; looking all the time gives 20,000 and more
        taken_s = []
        for _ in range(15):
            looks_per_second(engine, 0.05)
            start = time.monotonic()
            assert app(-5).result(timeout=60) == 5
            taken_s.append(time.monotonic() - start)
        assert min(taken_s) < 0.05  # a wake-up lost each time would leave it to the guard, which looks every 200 ms


def test_a_script_that_waits_for_long_tasks_does_not_keep_the_engine_busy() -> None:
    with mpitask.load(workers=1) as engine:
        nap = mpitask.python_app(time.sleep)
        assert nap(0.05).result(timeout=60) is None  # from now on the engine knows that these are long
        future = nap(1.2)
        before = engine.stats()["steps"]
        assert future.result(timeout=60) is None
        assert engine.stats()["steps"] - before < 1000  # a look every 50 us would be 24,000
