"""Shared objects and large values in jobs over MPI."""

from __future__ import annotations

import pytest

from helpers.processes import Launcher, MpiStack

JOB = """
import os
import numpy as np
from mpitask import current, map, python_app, share

LARGE = 1 << 20  # numbers: 8 MB

class Counted:
    def __init__(self):
        self.state = 1

    def __setstate__(self, state):
        self.__dict__.update(state)
        with open("log", "a") as file:
            file.write(f"{os.getpid()}\\n")

@python_app
def total(array, counted, i):
    return float(array.sum()) + i, array.flags.writeable, os.getpid()

array, counted = share(np.ones(LARGE)), share(Counted())
found = [f.result() for f in [total(array, counted, i) for i in range(300)]]
assert [x[0] for x in found] == [LARGE + i for i in range(300)]
assert not any(x[1] for x in found)
pids = open("log").read().split()
assert len(set(pids)) == len(pids) == len({x[2] for x in found}), (pids, {x[2] for x in found})
assert map(lambda i: float(array[i]) + i, range(500)).result() == [1.0 + i for i in range(500)]

@python_app
def change(array):
    array += 1
    return float(array.sum())

value = python_app(lambda: np.ones(LARGE))()
assert [f.result() for f in [change(value) for _ in range(20)]] == [2 * LARGE] * 20
stats = current().stats()
assert stats["objects_sent"] <= 2 * 8, stats
print("ok", len(pids))
"""


@pytest.mark.writes
@pytest.mark.parametrize("options", [["--workers", "1"], ["--inline"], ["--workers", "1", "--fanout", "1"]])
def test_over_mpi(launcher: Launcher, mpich: MpiStack, options: list[str]) -> None:
    result = launcher.run(JOB, n=3, mpi=mpich, options=options)
    assert (result.rc, result.out) == (0, "ok 2\n"), result.err
