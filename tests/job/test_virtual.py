"""Jobs on virtual worker slots."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from helpers.processes import Launcher, MpiStack, marked_processes

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


ROUNDS = """
import random, sys, time, mpitask

@mpitask.python_app
def wait(microseconds): ...

rng, engine, slots = random.Random(1), mpitask.current(), 5 * 256
while engine.stats()["slots"] < slots:
    time.sleep(0.01)
print("up", flush=True)
rounds = int(sys.argv[1])
while rounds > 0 or engine.stats()["recalled"] == 0:  # how often something comes back is the machine's
    rounds -= 1
    each, uneven = rng.choice([0, 100, 1_000, 10_000, 40_000]), rng.random() < 0.5
    times = [int(each * rng.uniform(0.1, 3)) if uneven else each for _ in range(rng.choice([640, 1281, 4000]))]
    futures = [wait(x) for x in times]
    engine.wait(timeout=60)
    assert all(future.done() for future in futures)
print("recalled", engine.stats()["recalled"])
"""


@pytest.mark.parametrize("rounds", [15, pytest.param(300, marks=pytest.mark.long)])
def test_ranks_that_stand_still_now_and_then_lose_nothing(launcher: Launcher, mpich: MpiStack, rounds: int) -> None:
    """A tree of two levels. While a rank stands still, others starve, and what was sent to it ahead comes back."""
    options = ["--virtual-slots", "256", "--fanout", "2"]
    script = launcher.start(ROUNDS, n=6, mpi=mpich, options=options, args=[str(rounds)])
    script.wait_for_output("up")
    rng = random.Random(rounds)
    words = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in marked_processes(script.mark)}
    ranks = [pid for pid, line in words.items() if line[1:3] == [b"-m", b"mpitask"]]
    assert len(ranks) == 6
    while script.process.poll() is None:
        stopped = rng.sample(ranks, rng.choice([1, 2]))
        for number in signal.SIGSTOP, signal.SIGCONT:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(rng.choice([0.002, 0.01, 0.05]))
    result = script.finish(timeout_s=30)
    assert (result.rc, result.err) == (0, "")
    assert int(result.out.split("recalled")[1]) > 0


def test_without_mpi(launcher: Launcher) -> None:
    result = launcher.run(JOB, options=["--virtual-slots", "64"])
    assert (result.rc, result.out, result.err) == (0, "64\n", "")


def test_job_that_ends_while_its_virtual_workers_are_busy(launcher: Launcher, mpich: MpiStack) -> None:
    source = "import mpitask\n@mpitask.python_app\ndef wait(x): ...\nfutures = [wait(10**9) for _ in range(300)]\n"
    result = launcher.run(source + "raise SystemExit(7)", n=3, mpi=mpich, options=["--virtual-slots", "64"])
    said = "mpitask: 300 tasks that had not finished: dropped\n"
    assert (result.rc, result.out, result.err) == (7, "", said)


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
