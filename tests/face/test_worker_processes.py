"""Workers, and the process that forks them: what tasks leave in them, and when they cannot be made."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

import mpitask
from helpers.processes import Launcher
from mpitask import python_app


@python_app
def wander() -> None:
    import locale

    os.chdir(tempfile.gettempdir())
    os.environ["LEFT"] = "1"
    os.environ.pop("HOME", None)
    os.umask(0o077)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    locale.setlocale(locale.LC_ALL, "C")


@python_app
def around() -> tuple[object, ...]:
    import locale

    mask = os.umask(0)
    os.umask(mask)
    handler = signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    timer = signal.getitimer(signal.ITIMER_REAL)[0]
    return (
        Path.cwd(),
        os.environ.get("LEFT"),
        os.environ.get("HOME"),
        mask,
        handler,
        timer,
        locale.setlocale(locale.LC_ALL),
    )


@python_app
def waits() -> tuple[object, object]:
    here = tempfile.mkdtemp()
    os.chdir(here)
    os.environ["MINE"] = "1"
    others = around().result()
    mine = (Path.cwd() == Path(here).resolve(), os.environ["MINE"])
    Path(here).rmdir()
    return others, mine


def test_what_a_task_has_changed_is_put_back() -> None:
    with mpitask.load(workers=1):
        before = around().result()
        wander().result()
        assert around().result() == before
        others, mine = waits().result()
        assert others == before
        assert mine == (True, "1")
        assert around().result() == before


def pid() -> int:
    return os.getpid()


def zygote_of(worker: int) -> int:
    return int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("times", [5])
def test_a_zygote_may_die_more_often_than_one_would_think(times: int, capfd: pytest.CaptureFixture[str]) -> None:
    with mpitask.load(workers=2):
        app = python_app(pid)
        for _ in range(times):
            zygote = zygote_of(app().result(timeout=60))
            os.kill(zygote, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while Path(f"/proc/{zygote}").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
    assert capfd.readouterr().err.count("was killed by signal 9, and they with it; all are started again") == times


@python_app
def kill_zygote() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def test_the_message_of_a_lost_zygote_blames_no_memory() -> None:
    with mpitask.load(workers=1), pytest.raises(mpitask.errors.WorkerLost, match="forks this rank's workers") as caught:
        kill_zygote().result(timeout=60)
    assert caught.value.what == "zygote"


FORK_FAILS = """
import os
fork = os.fork
calls = [0]
def failing():
    calls[0] += 1
    if calls[0] in (2, 3):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
if "zygote" in " ".join(open("/proc/self/cmdline").read().split(chr(0))):
    os.fork = failing
"""


@pytest.mark.writes
def test_a_fork_that_fails_costs_no_task(launcher: Launcher) -> None:
    (launcher.folder / "site").mkdir()
    (launcher.folder / "site" / "sitecustomize.py").write_text(FORK_FAILS)
    text = """
import os
from mpitask import python_app
@python_app
def pid():
    import time
    time.sleep(0.01)
    return os.getpid()
seen = set()
while len(seen) < 2:
    seen |= {future.result() for future in [pid() for _ in range(10)]}
print("two")
"""
    result = launcher.run(
        text, options=["--workers", "2"], env={"PYTHONPATH": str(launcher.folder / "site")}, timeout_s=60
    )
    assert (result.rc, result.out) == (0, "two\n"), result.err
    assert result.err.count("cannot be forked: Resource temporarily unavailable") == 1


def test_managers_of_multiprocessing_work_in_tasks() -> None:
    @python_app
    def put(queue: object, value: int) -> None:
        queue.put(value)  # type: ignore[attr-defined]

    with multiprocessing.get_context("spawn").Manager() as manager, mpitask.load(workers=2):
        queue = manager.Queue()
        for future in [put(queue, i) for i in range(4)]:
            future.result(timeout=60)
        assert sorted(queue.get() for _ in range(4)) == [0, 1, 2, 3]


def test_idle_workers_give_freed_memory_back() -> None:
    @python_app
    def fill() -> int:
        kept = [bytearray(1 << 20) for _ in range(200)]
        return len(kept)

    with mpitask.load(workers=1):
        worker = python_app(pid)().result()
        fill().result(timeout=60)
        statm = Path(f"/proc/{worker}/statm")
        deadline = time.monotonic() + 60
        while int(statm.read_text().split()[1]) * 4096 > 60 << 20:
            assert time.monotonic() < deadline, statm.read_text()
            time.sleep(0.05)
