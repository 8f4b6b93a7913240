"""The budget for lost workers is apart from that for failures."""

from __future__ import annotations

import concurrent.futures
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
        assert app(str(tmp_path / "a"), 3).result(timeout=20) == 3
        with pytest.raises(WorkerLost):
            app(str(tmp_path / "b"), 4).result(timeout=20)
        with pytest.raises(ValueError, match="always"):
            mpitask.python_app(fail)(str(tmp_path / "c")).result(timeout=20)
        assert (tmp_path / "c").stat().st_size == 1
        with pytest.raises(ValueError, match="always"):
            mpitask.python_app(fail, retries=1)(str(tmp_path / "d")).result(timeout=20)
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
        assert later.result(timeout=20) == gate
        engine.close()
    else:
        with pytest.raises(concurrent.futures.CancelledError):
            later.result(timeout=5)


def hold(gate: str) -> str:
    while not os.path.exists(gate):  # noqa: PTH110
        time.sleep(0.005)
    return gate
