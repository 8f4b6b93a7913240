"""The main job: scripts under `python -m mpitask`, alone and over MPI."""

from __future__ import annotations

import pytest

from helpers.processes import Launcher, MpiStack

DATAFLOW = """
import sys, math
from dataclasses import dataclass
from mpitask import python_app, load

@dataclass
class Part:            # a class of the script, as argument and result
    n: int
    total: float

@python_app
def draw(seed, n):
    return Part(n, float(sum((seed * 7919 + i) % 1000 for i in range(n))))

@python_app
def mean(parts, scale=1.0):
    assert all(type(p).__name__ == "Part" for p in parts["list"])
    return Part(1, scale * sum(p.total for p in parts["list"]) / sum(p.n for p in parts["list"]))

if __name__ == "__main__":
    parts = [draw(i, 100) for i in range(200)]
    with load():       # adopts the running engine
        got = mean({"list": parts}, scale=2.0).result()
    assert isinstance(got, Part), type(got)
    want = 2.0 * sum((s * 7919 + i) % 1000 for s in range(200) for i in range(100)) / 20000
    print("args", sys.argv[1:], "ok" if math.isclose(got.total, want) else (got, want))
"""


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_dataflow_over_mpi(launcher: Launcher, mpi: MpiStack, n: int) -> None:
    result = launcher.run(DATAFLOW, n=n, mpi=mpi, args=["a", "--b"])
    assert result.rc == 0, result.err
    assert result.out == "args ['a', '--b'] ok\n"


@pytest.mark.parametrize("options", [["--inline"], ["--workers", "2"], ["--fanout", "1"], ["--progress", "spin"]])
def test_options_over_mpi(launcher: Launcher, mpich: MpiStack, options: list[str]) -> None:
    result = launcher.run(DATAFLOW, n=3, mpi=mpich, options=options)
    assert (result.rc, result.out) == (0, "args [] ok\n"), result.err


@pytest.mark.parametrize("options", [[], ["--inline"], ["--workers", "1"]])
def test_dataflow_without_mpi(launcher: Launcher, options: list[str]) -> None:
    source = DATAFLOW + "\n    assert 'mpi4py.MPI' not in sys.modules\n"
    result = launcher.run(source, options=options)
    assert (result.rc, result.out) == (0, "args [] ok\n"), result.err


def test_dash_n_starts_mpiexec(launcher: Launcher, mpi: MpiStack) -> None:
    source = """
import os
from mpitask import python_app
@python_app
def where(): return os.getppid()
print(len({f.result() for f in [where() for _ in range(200)]}))
"""
    result = launcher.run(source, mpi=mpi, options=["-n", "3"])
    assert result.rc == 0, result.err
    assert result.out.strip() in {"1", "2"}  # zygotes: one for each agent that got a task


def test_everything_ends_before_the_script_does(launcher: Launcher, mpich: MpiStack) -> None:
    """Tasks nobody waited for are finished at the normal end."""
    source = """
import time, sys
from pathlib import Path
from mpitask import python_app
@python_app
def slow(path):
    time.sleep(0.5)
    print("task done", flush=True)
slow(1)
print("script done", flush=True)
"""
    for options in ({}, {"n": 3, "mpi": mpich}):
        result = launcher.run(source, **options)
        assert result.rc == 0
        assert sorted(result.out.split("\n")) == ["", "script done", "task done"]


def test_large_arguments_and_results_cross_ranks(launcher: Launcher, mpi: MpiStack) -> None:
    source = """
import numpy as np
from mpitask import python_app
@python_app
def double(a): a *= 2; return a            # arguments are the task's own: writable
@python_app
def total(arrays): return sum(float(a.sum()) for a in arrays)
big = [np.full(300_000 + i, i, dtype=np.float64) for i in range(6)]
once = [double(a) for a in big]
twice = [double(a) for a in once]            # values stay bytes at the root and travel as objects
print(total(twice).result() == sum(4.0 * i * (300_000 + i) for i in range(6)))
print(all((f.result() == 2 * i).all() for i, f in enumerate(once)), big[1][0] == 1)
"""
    result = launcher.run(source, n=3, mpi=mpi)
    assert (result.rc, result.out) == (0, "True\nTrue True\n"), result.err


def test_ten_thousand_into_one(launcher: Launcher, mpich: MpiStack) -> None:
    source = """
from mpitask import python_app
@python_app
def one(i): return i
@python_app
def total(xs): return sum(xs)
print(total([one(i) for i in range(10_000)]).result())
"""
    for options in ({}, {"n": 3, "mpi": mpich}):
        result = launcher.run(source, **options)
        assert (result.rc, result.out) == (0, f"{10_000 * 9_999 // 2}\n"), result.err
