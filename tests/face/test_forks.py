"""Forked children: of tasks and of scripts. They own nothing of what mpitask has, and end as programs of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import mpitask
from helpers.processes import LOCAL_PYTHON, Launcher, MpiStack
from mpitask import python_app


@python_app
def forks(how: str) -> tuple[int, int]:
    pid = os.fork()
    if pid == 0:
        if how == "exits":
            raise SystemExit(7)
        if how == "raises":
            raise RuntimeError("in the child")
        return 0, 0
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@python_app
def plain(x: int) -> int:
    return x + 1


@python_app
def uses_engine_in_child() -> str:
    reading, writing = os.pipe()
    before = plain(1)
    assert before.result() == 2
    if os.fork() == 0:
        try:
            plain(2).result()
        except mpitask.errors.NoEngineError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.wait()
    return os.read(reading, 1000).decode()


@pytest.mark.parametrize(("how", "code"), [("returns", 0), ("exits", 7), ("raises", 1)])
def test_a_child_that_a_task_forked_and_that_comes_back_ends(how: str, code: int) -> None:
    with mpitask.load(workers=2):
        for _ in range(3):
            children = [forks(how) for _ in range(2)]
            others = [plain(i) for i in range(20)]
            for child in children:
                pid, status = child.result(timeout=60)
                assert status == code
                assert not Path(f"/proc/{pid}").exists()
            assert [other.result(timeout=60) for other in others] == list(range(1, 21))


def test_a_child_of_a_task_has_no_engine() -> None:
    with mpitask.load(workers=2):
        assert "was forked" in uses_engine_in_child().result(timeout=60)


def test_a_child_of_the_program_has_no_engine() -> None:
    with mpitask.load(workers=1) as engine:
        done, never = plain(1), engine.promise()
        assert done.result() == 2
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            found = []
            try:
                found.append(str(done.result()))
                for use in (lambda: plain(2), never.result, never.exception):
                    try:
                        use()
                    except mpitask.errors.NoEngineError as error:
                        found.append("forked" if "was forked" in str(error) else "no")
                engine.wait()
                engine.close()
                del done, never, engine
            finally:
                os.write(writing, " ".join(found).encode())
                os._exit(0)
        deadline = time.monotonic() + 60
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.01)
        assert os.read(reading, 1000).decode() == "2 forked forked forked"
        never.set_result(None)
        assert plain(2).result(timeout=60) == 3


SCRIPT = """
import os, sys
from mpitask import python_app
@python_app
def add(x):
    return x + 1
later = [add(i) for i in range(100)]
print(add(1).result(), flush=True)
file = open("child", "w")
if (pid := os.fork()) == 0:
    file.write("written")
    {end}
else:
    file.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == {code}
    print(sum(f.result() for f in later), open("child").read())
"""


@pytest.mark.writes
@pytest.mark.parametrize(("end", "code"), [("pass", 0), ("sys.exit(5)", 5)])
@pytest.mark.parametrize("n", [None, 3])
def test_a_child_of_the_script(launcher: Launcher, mpi: MpiStack, end: str, code: int, n: int | None) -> None:
    text = SCRIPT.format(end=end, code=code)
    result = launcher.run(text, n=n, mpi=mpi, timeout_s=60)
    assert result.rc == 0, result.err
    assert result.out == "2\n5050 written\n"


@pytest.mark.writes
def test_commands_inherit_three_descriptors_only(launcher: Launcher, mpi: MpiStack) -> None:
    """Not the memory of the rank, the launcher's pipes, MPI's sockets; nor does a worker hold any of these."""
    text = """
import os, subprocess
from mpitask import bash_app, python_app
@bash_app
def of_command(stdout=None):
    return "exec ls -l /proc/self/fd"
@python_app
def of_worker():
    import os
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    names = [os.readlink(path) for path in paths if os.path.lexists(path)]
    return [name for name in names if name.startswith(("socket:", "/memfd:"))]
of_command(stdout="fds").result()
numbers = [int(line.partition(" -> ")[0].split()[-1]) for line in open("fds") if "->" in line and "/proc/" not in line]
print(sorted(numbers), of_worker().result())
"""
    result = launcher.run(text, n=2, mpi=mpi, timeout_s=60)
    assert result.rc == 0, result.err
    numbers, _, held = result.out.partition("]")
    assert set(map(int, numbers.strip("[").split(","))) == {0, 1, 2}
    assert held.strip() == "[]"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_streams(launcher: Launcher, closed: str) -> None:
    text = """
from mpitask import bash_app, python_app
@python_app
def add(x):
    print("from the task")
    return x + 1
@bash_app
def command():
    return "cat; echo from the command; echo error >&2"
ok = add(1).result() == 2 and command().result() == 0
raise SystemExit(7 if ok else 1)
"""
    command = ["sh", "-c", f"exec {LOCAL_PYTHON} -m mpitask script.py {closed}"]
    result = launcher.run(text, command=command, timeout_s=60)
    assert result.rc == 7, result.err


def test_what_tasks_leave_running_does_not_keep_the_job(launcher: Launcher, mpi: MpiStack) -> None:
    text = """
import subprocess
from mpitask import bash_app, python_app
@bash_app
def command():
    return "setsid sleep 1000 & (sleep 1000 &) ; true"
@python_app
def function():
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
print(command().result(), function().result())
"""
    result = launcher.run(text, n=2, mpi=mpi, timeout_s=60)
    assert (result.rc, result.out) == (0, "0 None\n"), result.err
