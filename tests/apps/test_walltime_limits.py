"""A walltime is the end, whatever the task does then: tried once, and not waiting for its sub-tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpitask import AppTimeout, load, python_app

LIMIT_S = 60


@pytest.fixture
def two() -> Iterator[None]:
    with load(workers=2, loss_retries=2):
        yield


@python_app
def pause(seconds: float, path: str = "") -> str:
    if path:
        Path(path).touch()
    time.sleep(seconds)
    return "slept"


@pytest.mark.parametrize("retries", [0, 1])
def test_code_that_hears_no_signal_is_tried_as_often_as_retries_says(two: None, retries: int, tmp_path: Path) -> None:
    @python_app(retries=retries)
    def deaf(path: str, walltime: float = 0.2) -> int:
        with Path(path).open("a") as file:
            file.write("x")
        return sum(range(10**11))

    path = tmp_path / "attempts"
    with pytest.raises(AppTimeout):
        deaf(str(path)).result(timeout=LIMIT_S)
    assert path.read_text() == "x" * (1 + retries)


@pytest.mark.parametrize("how", ["runs", "waits", "returns"])
def test_a_running_sub_task_does_not_hold_the_task_up(two: None, how: str, tmp_path: Path) -> None:
    @python_app
    def parent(path: str, walltime: float = 1.0) -> str:
        future = pause(LIMIT_S, path)
        deadline = time.monotonic() + LIMIT_S
        while not Path(path).exists() and time.monotonic() < deadline:  # the other worker has begun it
            time.sleep(0.001)
        if how == "waits":
            return str(future.result())
        while how == "runs":
            time.sleep(0.01)
        return "returned"

    began = time.monotonic()
    with pytest.raises(AppTimeout, match="parent exceeded walltime"):
        parent(str(tmp_path / "begun")).result(timeout=LIMIT_S)
    assert time.monotonic() - began < LIMIT_S / 2
    assert [pause(0).result(timeout=LIMIT_S) for _ in range(5)] == ["slept"] * 5


def test_a_sub_task_with_a_walltime_leaves_that_of_its_task(tmp_path: Path) -> None:
    @python_app
    def quick(walltime: float = 20.0) -> int:
        return 1

    @python_app
    def parent(walltime: float = 1.0) -> None:
        assert quick().result() == 1
        while True:
            time.sleep(0.01)

    with load(workers=1), pytest.raises(AppTimeout, match=r"parent exceeded walltime: 1\.0 seconds$"):
        parent().result(timeout=LIMIT_S)
