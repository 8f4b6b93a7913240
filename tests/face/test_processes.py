"""What belongs to one process stays with it: forks, descriptors, what tasks leave behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mpitask
from helpers.processes import LAUNCHER_SETTINGS, MpiStack
from mpitask import NoEngineError, WorkerLost, bash_app, python_app


def forks(how: str) -> int:
    pid = os.fork()
    if pid == 0:
        if how == "exit":
            sys.exit(3)
        if how == "raise":
            raise RuntimeError("in the child")
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(("how", "code"), [("exit", 3), ("raise", 1), ("return", 0)])
def test_a_child_that_comes_back_from_a_task_ends_there(how: str, code: int) -> None:
    with mpitask.load(workers=1):
        assert python_app(forks)(how).result(timeout=60) == code
        assert [f.result(timeout=60) for f in [python_app(abs)(-i) for i in range(20)]] == list(range(20))


def forks_in_c() -> int:
    assert python_app(abs)(-3).result(timeout=60) == 3  # now this worker has an engine
    pid: int = ctypes.PyDLL(None).fork()
    if pid == 0:
        try:
            python_app(len)("new to the engine")
        except NoEngineError:
            os._exit(7)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_that_c_code_forks_in_a_task_has_no_engine() -> None:
    with mpitask.load(workers=1):
        assert python_app(forks_in_c)().result(timeout=60) == 7


def test_a_forked_child_of_the_script_has_no_engine() -> None:
    with mpitask.load(workers=1):
        app = python_app(time.sleep)
        running = app(1)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                running.result(timeout=30)
            except NoEngineError:
                code = 7
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        running.result(timeout=60)


FORKING = """
import os, sys
from mpitask import python_app
print(python_app(abs)(-5).result(), flush=True)
pid = os.fork()
if pid == 0:
    if len(sys.argv) > 1:
        sys.exit(4)
else:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print("child", code, python_app(abs)(-6).result(), flush=True)
"""


@pytest.mark.parametrize("argument", [[], ["exit"]])
def test_a_script_may_fork_under_mpiexec(tmp_path: Path, mpi: MpiStack, argument: list[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text(FORKING)
    command = [mpi.mpiexec, "-n", "3", str(mpi.python), "-m", "mpitask", str(script), *argument]
    done = subprocess.run(
        command, env={**os.environ, **LAUNCHER_SETTINGS}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"child {4 if argument else 0} 6" in done.stdout


def descriptors() -> list[str]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(path.readlink()))
        except OSError:
            continue
    return found


def test_tasks_and_commands_have_no_descriptors_of_the_rank(tmp_path: Path) -> None:
    listing = tmp_path / "fds"
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    pipe = str(Path(f"/proc/self/fd/{write_end}").readlink())
    show = bash_app(lambda stdout=None: "for f in /proc/$$/fd/*; do readlink $f; done; true")
    try:
        with mpitask.load(workers=1):
            show(stdout=(str(listing), "w")).result(timeout=60)
            seen = python_app(descriptors)().result(timeout=60)
    finally:
        os.close(read_end)
        os.close(write_end)
    for names in (seen, listing.read_text().splitlines()):
        assert pipe not in names
        assert not [name for name in names if "memfd:mpitask" in name]


def handler_of(number: int) -> int:
    return int(signal.getsignal(number))  # type: ignore[arg-type]


def test_workers_ignore_no_signal_because_the_script_does() -> None:
    before = signal.signal(signal.SIGWINCH, signal.SIG_IGN)
    try:
        with mpitask.load(workers=1):
            assert python_app(handler_of)(int(signal.SIGWINCH)).result(timeout=60) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGWINCH, before)


def kill_zygote() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def test_losses_of_the_zygote_are_forgiven_after_good_work() -> None:
    with mpitask.load(workers=1):
        for _ in range(5):
            with pytest.raises(WorkerLost, match="the process that forks this rank's workers") as caught:
                python_app(kill_zygote)().result(timeout=60)
            assert caught.value.what == "zygote"
            assert python_app(abs)(-3).result(timeout=60) == 3


FAILING_FORK = """
import os, sys
if "-c" in getattr(sys, "orig_argv", []):
    real, count = os.fork, 0
    def fork():
        global count
        count += 1
        if count == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real()
    os.fork = fork
"""


def test_a_fork_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING_FORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with mpitask.load(workers=1):
        with pytest.raises(WorkerLost):
            python_app(os._exit)(1).result(timeout=60)
        assert python_app(abs)(-3).result(timeout=60) == 3


def leave_behind() -> int:
    return subprocess.Popen(["/bin/sleep", "600"]).pid


def test_what_tasks_leave_behind_ends_with_the_engine() -> None:
    with mpitask.load(workers=1):
        pid = python_app(leave_behind)().result(timeout=60)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(tmp_path: Path, closed: str) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; from mpitask import python_app; sys.exit(python_app(abs)(-7).result(timeout=60))")
    command = f"exec {sys.executable} -m mpitask --workers 1 {script} {closed}"
    assert subprocess.run(["/bin/bash", "-c", command], timeout=90, check=False).returncode == 7
