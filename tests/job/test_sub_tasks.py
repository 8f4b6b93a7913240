"""Tasks that submit tasks, over MPI: the sub-tasks of one worker find those of other ranks."""

from __future__ import annotations

import pytest

from helpers.processes import Launcher, MpiStack

SPREAD = """
import os, time
from mpitask import python_app

@python_app
def where(i):
    time.sleep(0.02)
    return i, os.getpid()

@python_app
def fib(n):
    return n if n < 2 else fib(n - 1).result() + fib(n - 2).result()

@python_app
def spread(n):
    found = [future.result() for future in [where(i) for i in range(n)]]
    return sorted(i for i, _ in found) == list(range(n)), len({pid for _, pid in found})

if __name__ == "__main__":
    ok, processes = spread(200).result(timeout=200)
    print(ok, processes, fib(9).result(timeout=60))
"""


@pytest.mark.parametrize("options", [["--workers", "1"], ["--inline"]])
def test_sub_tasks_reach_other_ranks(launcher: Launcher, mpich: MpiStack, options: list[str]) -> None:
    result = launcher.run(SPREAD, n=4, mpi=mpich, options=options)
    assert (result.rc, result.out) == (0, "True 3 34\n"), result.err


def test_sub_tasks_climb_a_chain_of_ranks(launcher: Launcher, openmpi: MpiStack) -> None:
    result = launcher.run(SPREAD, n=4, mpi=openmpi, options=["--workers", "1", "--fanout", "1"])
    assert (result.rc, result.out) == (0, "True 3 34\n"), result.err
