"""Numbers of objects: all engines of a rank take them from one count, whatever their process numbers, up to its end."""

from __future__ import annotations

import os
import time

import pytest

import mpitask.driver
from mpitask import MpitaskError, load, python_app, running
from mpitask.native import lib

LIMIT_S = 60


def take(n: int) -> list[int]:
    driver = running.current()._driver
    return [int(lib.mt_driver_new_object_id(driver)) for _ in range(n)]


@python_app
def take_in_a_worker(n: int) -> tuple[int, list[int]]:
    time.sleep(0.02)  # so that the next one goes to another worker
    return os.getpid(), take(n)


@python_app
def big(tag: int) -> bytes:
    return bytes([tag]) * 6000


@python_app
def first(data: bytes) -> int:
    return data[0]


@python_app
def nested(n: int) -> list[int]:
    made = [big(100 + i) for i in range(n)]
    return [future.result() for future in [first(one) for one in made]]


def test_no_two_engines_of_a_rank_give_the_same_number() -> None:
    with load(workers=2, loss_retries=0):
        mine, theirs, pids = [], [], set()
        while len(pids) < 2:
            mine += take(3)
            for future in [take_in_a_worker(3) for _ in range(4)]:
                pid, numbers = future.result(timeout=LIMIT_S)
                pids.add(pid)
                theirs += numbers
        both = mine + theirs
        assert len(both) == len(set(both))
        assert {number >> lib.MT_ID_COUNT_BITS for number in both} == {1}


def test_values_of_the_script_and_of_a_task_at_the_same_time() -> None:
    with load(workers=3):
        mine = [big(i) for i in range(30)]
        assert [first(one).result(timeout=LIMIT_S) for one in mine] == list(range(30))
        assert nested(40).result(timeout=LIMIT_S) == list(range(100, 140))


def test_ranks_have_numbers_of_their_own() -> None:
    last = mpitask.driver._first_id(0, (1 << lib.MT_ID_COUNT_BITS) - 1)
    assert last < mpitask.driver._first_id(1, 0)
    most = (1 << lib.MT_ID_RANK_BITS) - 2
    assert mpitask.driver._first_id(most, (1 << lib.MT_ID_COUNT_BITS) - 1) == 2**63 - 1
    with pytest.raises(MpitaskError, match="ranks"):
        mpitask.driver._first_id(most + 1, 0)


def test_the_last_number_is_followed_by_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    end = 1 << lib.MT_ID_COUNT_BITS
    whole = mpitask.driver._first_id
    monkeypatch.setattr(mpitask.driver, "_first_id", lambda rank, n: whole(rank, end - 1))
    with load(inline=True):
        assert python_app(lambda: 1)().result(timeout=LIMIT_S) == 1
        for _ in range(2):
            with pytest.raises(MpitaskError, match="all numbers of a kind have been used"):
                python_app(lambda: 2)()


def test_the_last_number_for_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    end = 1 << lib.MT_ID_COUNT_BITS
    whole = mpitask.driver._first_id
    monkeypatch.setattr(mpitask.driver, "_first_id", lambda rank, n: whole(rank, end - 2))
    engine = load(inline=True)
    with pytest.raises(MpitaskError, match="all numbers of a kind have been used"):
        first(big(1)).result(timeout=LIMIT_S)
    engine.close(drop=True)
