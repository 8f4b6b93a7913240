"""Jobs on virtual worker slots."""

from __future__ import annotations

import json

import pytest

from helpers.processes import Launcher, MpiStack

JOB = """
import mpitask

@mpitask.python_app
def wait(name, microseconds):
    raise AssertionError("a virtual worker runs no functions")

futures = [wait("x", i % 100 * 100) for i in range(2000)]
assert [future.result() for future in futures] == [None] * 2000
print(mpitask.current().stats()["slots"])
"""


def test_job_on_virtual_slots(launcher: Launcher, mpi: MpiStack) -> None:
    result = launcher.run(JOB, n=3, mpi=mpi, options=["--virtual-slots", "64"])
    assert (result.rc, result.out, result.err) == (0, "128\n", "")


def test_without_mpi(launcher: Launcher) -> None:
    result = launcher.run(JOB, options=["--virtual-slots", "64"])
    assert (result.rc, result.out, result.err) == (0, "64\n", "")


def test_job_that_ends_while_its_virtual_workers_are_busy(launcher: Launcher, mpich: MpiStack) -> None:
    source = "import mpitask\n@mpitask.python_app\ndef wait(x): ...\nfutures = [wait(10**9) for _ in range(300)]\n"
    result = launcher.run(source + "raise SystemExit(7)", n=3, mpi=mpich, options=["--virtual-slots", "64"])
    assert (result.rc, result.out, result.err) == (7, "", "")


@pytest.mark.writes
def test_agents_write_what_they_have_counted(launcher: Launcher, mpich: MpiStack) -> None:
    options = ["--virtual-slots", "8", "--stats", "."]
    result = launcher.run("", n=3, mpi=mpich, options=options)
    assert (result.rc, result.err) == (0, "")
    found = [json.loads((launcher.folder / f"rank-{rank}.json").read_text()) for rank in (1, 2)]
    assert [stats["slots"] for stats in found] == [8, 8]
    assert all(stats["cpu_ns"] > 0 for stats in found)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--virtual-slots", "0"], "give a number from 1 to"),
        (["--virtual-slots", "-3"], "give a number from 1 to"),
        (["--virtual-slots", "9999999999"], "give a number from 1 to"),
        (["--virtual-slots", "8", "--inline"], "--virtual-slots run no functions, --inline does"),
        (["--stats", "nowhere"], "there is no such folder"),
    ],
)
def test_wrong_options(launcher: Launcher, words: list[str], text: str) -> None:
    result = launcher.run("print('ran')", options=words)
    assert (result.rc, result.out) == (2, "")
    assert text in result.err
