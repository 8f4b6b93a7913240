"""Ways to end: every one leaves nothing behind, in time, with the right exit code."""

from __future__ import annotations

import signal

import pytest

from helpers.processes import Launcher, MpiStack

BUSY = """
import os, signal, sys, time
from mpitask import python_app
@python_app
def sleep(s):
    time.sleep(s)
    return s
for f in [sleep(0) for _ in range(50)]: f.result()
slow = [sleep(60) for _ in range(50)]
while not slow[0].running(): time.sleep(0.01)
print("busy", flush=True)
{ending}
"""

WAYS = [
    ("raise ValueError('boom')", 1, "ValueError: boom"),
    ("sys.exit(7)", 7, ""),
    ("sys.exit('a message')", 1, "a message"),
    ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", 143, ""),
    ("os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", 130, "interrupted"),
    ("slow[0].result(timeout=0.2)", 1, "TimeoutError: task 50 (sleep) has not ended within 0.2 s"),
]


@pytest.mark.parametrize(("ending", "rc", "text"), WAYS)
def test_endings_without_mpi(launcher: Launcher, ending: str, rc: int, text: str) -> None:
    script = launcher.start(BUSY.format(ending=ending))
    script.wait_for_output("busy")
    result = script.finish(timeout_s=30)
    assert result.rc == rc, result.err
    assert text in result.err


@pytest.mark.parametrize(("ending", "rc", "text"), WAYS)
def test_endings_over_mpi(launcher: Launcher, mpi: MpiStack, ending: str, rc: int, text: str) -> None:
    script = launcher.start(BUSY.format(ending=ending), n=3, mpi=mpi)
    script.wait_for_output("busy")
    result = script.finish(timeout_s=30)
    assert result.rc == rc, result.err
    assert text in result.err
    assert "BAD TERMINATION" not in result.out + result.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.kills_ranks
def test_signals_to_mpiexec(launcher: Launcher, mpi: MpiStack, number: int) -> None:
    """What a terminal's Ctrl-C or a batch system does."""
    idle = "while True: time.sleep(0.1)"  # one long sleep would miss a signal that comes just before it
    script = launcher.start(BUSY.format(ending=idle), n=3, mpi=mpi)
    script.wait_for_output("busy")
    script.signal(number)
    assert script.finish(timeout_s=30).rc != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_a_waiting_script(launcher: Launcher, number: int) -> None:
    script = launcher.start(BUSY.format(ending="slow[0].result()"))
    script.wait_for_output("busy")
    script.signal(number)
    assert script.finish(timeout_s=30).rc == 128 + number


STUCK = """
import mpitask
engine = mpitask.current()
engine._closers.append(lambda: (print("closing", flush=True), [time.sleep(0.1) for _ in range(600)]))
print("waiting", flush=True)
slow[0].result()
"""


def test_a_second_ctrl_c_ends_at_once(launcher: Launcher) -> None:
    script = launcher.start(BUSY.format(ending=STUCK))
    script.wait_for_output("waiting")
    script.signal(signal.SIGINT)
    script.wait_for_output("closing")
    script.signal(signal.SIGINT)
    result = script.finish(timeout_s=30)
    assert result.rc == 128 + signal.SIGINT
    assert "interrupted again" in result.err
    assert "Traceback" not in result.err


@pytest.mark.kills_ranks
def test_root_killed_over_mpi(launcher: Launcher, mpi: MpiStack) -> None:
    script = launcher.start(BUSY.format(ending="os.kill(os.getpid(), signal.SIGKILL)"), n=3, mpi=mpi)
    script.wait_for_output("busy")
    assert script.finish(timeout_s=30).rc != 0


def test_root_killed_without_mpi(launcher: Launcher) -> None:
    script = launcher.start(BUSY.format(ending="os.kill(os.getpid(), signal.SIGKILL)"))
    script.wait_for_output("busy")
    assert script.finish(timeout_s=30).rc == -signal.SIGKILL


@pytest.mark.kills_ranks
def test_agent_killed(launcher: Launcher, mpi: MpiStack) -> None:
    """The launcher ends the job; nothing hangs."""
    source = """
import os, signal, time
from mpitask import python_app
@python_app
def kill_agent():
    with open(f"/proc/{os.getppid()}/stat") as f:   # the zygote's parent is the rank
        os.kill(int(f.read().rsplit(")", 1)[1].split()[1]), signal.SIGKILL)
    time.sleep(60)
kill_agent().result()
"""
    assert launcher.run(source, n=3, mpi=mpi, timeout_s=60).rc != 0


def test_plain_script_with_load(launcher: Launcher) -> None:
    source = """
from mpitask import load, python_app
@python_app
def double(x): return 2 * x
with load(workers=2):
    print(double(double(1)).result())
    left = double(21)
print(left.result(), left)
"""
    result = launcher.run(source, plain=True)
    assert (result.rc, result.out) == (0, "4\n42 <mpitask.Future of task 2 (double): done>\n"), result.err


def test_load_without_with_finishes(launcher: Launcher) -> None:
    source = """
import time
from mpitask import load, python_app
@python_app
def sleep(s): time.sleep(s); print("slept")
load(workers=1)
sleep(0.1); sleep(0.1)
"""
    result = launcher.run(source, plain=True, timeout_s=30)
    assert (result.rc, result.out) == (0, "slept\nslept\n"), result.err


def test_exception_inside_load_drops(launcher: Launcher) -> None:
    source = """
import time
from mpitask import load, python_app
@python_app
def sleep(s): time.sleep(s)
with load(workers=1):
    sleep(60)
    raise KeyError("boom")
"""
    result = launcher.run(source, plain=True, timeout_s=30)
    assert result.rc == 1
    assert "KeyError: 'boom'" in result.err


def test_zygote_killed(launcher: Launcher) -> None:
    """Its workers die with it; the tasks that ran are lost, later ones run on new workers."""
    source = """
import os, signal
from mpitask import load, python_app, WorkerLost
@python_app
def kill_zygote(): os.kill(os.getppid(), signal.SIGKILL); signal.pause()
@python_app
def double(x): return 2 * x
with load(workers=2):
    try: kill_zygote().result(timeout=60)
    except WorkerLost as error: print("lost")
    print(double(21).result(timeout=60))
"""
    result = launcher.run(source, plain=True, timeout_s=60)
    assert (result.rc, result.out) == (0, "lost\n42\n"), result.err
