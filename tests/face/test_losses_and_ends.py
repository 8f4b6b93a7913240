"""The budget for lost workers is apart from that for failures."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import signal
import time
from pathlib import Path

import pytest

import mpitask
from mpitask import ConfigurationError, WorkerLost


def die_until(path: str, attempts: int) -> int:
    with Path(path).open("a") as file:
        file.write("x")
    done = Path(path).stat().st_size
    if done < attempts:
        os.kill(os.getpid(), signal.SIGKILL)
    return done


def fail(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("x")
    raise ValueError("always")


def test_losses_are_tried_again_and_failures_are_not(tmp_path: Path) -> None:
    with mpitask.load(workers=2, loss_retries=2):
        app = mpitask.python_app(die_until)
        assert app(str(tmp_path / "a"), 3).result(timeout=60) == 3
        with pytest.raises(WorkerLost):
            app(str(tmp_path / "b"), 4).result(timeout=60)
        with pytest.raises(ValueError, match="always"):
            mpitask.python_app(fail)(str(tmp_path / "c")).result(timeout=60)
        assert (tmp_path / "c").stat().st_size == 1
        with pytest.raises(ValueError, match="always"):
            mpitask.python_app(fail, retries=1)(str(tmp_path / "d")).result(timeout=60)
        assert (tmp_path / "d").stat().st_size == 2


def test_out_of_range() -> None:
    with pytest.raises(ConfigurationError, match="loss_retries=256: give a number from 0 to 255"):
        mpitask.Config(loss_retries=256)


@pytest.mark.parametrize("mode", ["wait", "cleanup", "skip"])
def test_the_end_of_the_block(tmp_path: Path, mode: str) -> None:
    gate = str(tmp_path / "gate")
    with mpitask.load(workers=1, exit_mode=mode) as engine:
        app = mpitask.python_app(hold)
        future = app(gate)
        later = app(gate)
        if mode != "cleanup":
            Path(gate).touch()
    if mode == "wait":
        assert future.done()
        assert later.result(timeout=0) == gate
    elif mode == "skip":
        assert mpitask.current() is engine
        assert later.result(timeout=60) == gate
        engine.close()
    else:
        with pytest.raises(concurrent.futures.CancelledError):
            later.result(timeout=60)


def hold(gate: str) -> str:
    while not os.path.exists(gate):  # noqa: PTH110
        time.sleep(0.005)
    return gate


def die_once(folder: str, x: int) -> int:
    if x % 1000 == 500:
        mark = Path(folder) / str(x)
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def test_a_worker_that_dies_in_the_middle_of_a_range(tmp_path: Path) -> None:
    """Only what it was given is tried again, and every item comes once."""
    with mpitask.load(workers=2, loss_retries=5):
        future = mpitask.map(functools.partial(die_once, str(tmp_path)), range(3000))
        assert future.result(timeout=60) == [x * x for x in range(3000)]
        assert len(list(tmp_path.iterdir())) == 3


def test_a_range_whose_worker_dies_too_often(tmp_path: Path) -> None:
    with mpitask.load(workers=2):
        future = mpitask.map(functools.partial(die_once, str(tmp_path)), range(400, 600))
        with pytest.raises(WorkerLost):
            future.result(timeout=60)
        assert mpitask.map(functools.partial(die_once, str(tmp_path)), range(500, 502)).result(timeout=60) == [
            x * x for x in range(500, 502)
        ]
