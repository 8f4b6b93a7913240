"""A task with a wild pointer writes over the memory that its worker shares: at most it costs the tasks of workers."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

import pytest

from mpitask import Config, WorkerLost, load, python_app
from mpitask.native import lib

LIMIT_S = 60
HEAD, LINK_HEAD, STARTED = 4096, 192, 64
WORKERS = 2


def link_at(index: int) -> int:
    return HEAD + index * (LINK_HEAD + 2 * int(lib.mt_ring_footprint(Config().ring_bytes)))


def up_ring_of_the_zygote() -> int:
    return link_at(0) + LINK_HEAD + int(lib.mt_ring_footprint(Config().ring_bytes))


@python_app
def write(places: list[int], data: bytes) -> int:
    lines = Path("/proc/self/maps").read_text().splitlines()
    base = next(int(line.split("-")[0], 16) for line in lines if "memfd:mpitask" in line)
    for place in places:
        ctypes.memmove(base + place, data, len(data))
    return len(places)


@python_app
def plain(i: int) -> int:
    return i


def ends_well() -> bool:
    """Tasks after it may be lost with their workers; then all is well again."""
    futures = [plain(i) for i in range(20)]
    for i, future in enumerate(futures):
        with contextlib.suppress(WorkerLost):
            assert future.result(timeout=LIMIT_S) == i
    return [plain(i).result(timeout=LIMIT_S) for i in range(50)] == list(range(50))


@pytest.mark.parametrize("data", [bytes(8), b"\xff" * 8, os.urandom(6) + b"\0\0"], ids=["zeros", "ones", "noise"])
def test_the_counts_of_begun_jobs(data: bytes) -> None:
    with load(workers=WORKERS):
        assert [plain(i).result(timeout=LIMIT_S) for i in range(20)] == list(range(20))
        with contextlib.suppress(WorkerLost):
            assert write([link_at(1 + i) + STARTED for i in range(WORKERS)], data).result(timeout=LIMIT_S) == WORKERS
        for future in [plain(i) for i in range(40)]:
            future.exception(timeout=LIMIT_S)
        assert ends_well()


def test_the_way_up_of_the_zygote() -> None:
    with load(workers=WORKERS):
        write([up_ring_of_the_zygote()], (1 << 40).to_bytes(8, "little")).exception(timeout=LIMIT_S)
        assert ends_well()
        write([up_ring_of_the_zygote() + 128], b"\xff" * 64).exception(timeout=LIMIT_S)
        assert ends_well()
