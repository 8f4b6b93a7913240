"""What a script has left to do at its last line: its tasks, its callbacks, its threads, and who has left reading."""

from __future__ import annotations

import signal
import subprocess

import pytest

from helpers.processes import LOCAL_PYTHON, Launcher

LEFT_OPEN = """
import sys, time, threading
import mpitask

def work(i):
    time.sleep(0.2)
    print("did", i, flush=True)

def leave():  # its executor and its futures are gone before they have ended
    executor = mpitask.Executor(1)
    for i in range(3):
        executor.submit(work, i)

if __name__ == "__main__":
    {body}
"""

WAYS_TO_LEAVE = {
    "a global": "ex = mpitask.Executor(1); fs = [ex.submit(work, i) for i in range(3)]",
    "nothing that is kept": "leave()",
    "sys.exit": "ex = mpitask.Executor(1); [ex.submit(work, i) for i in range(3)]; sys.exit()",
    "an exception": "ex = mpitask.Executor(1); [ex.submit(work, i) for i in range(3)]; ex.nothing",
    "a loaded engine": "mpitask.load(workers=1); app = mpitask.python_app(work); [app(i) for i in range(3)]",
    "a thread": """
    ex = mpitask.Executor(1)
    def go():
        threading.main_thread().join()
        for i in range(3): ex.submit(work, i)
    threading.Thread(target=go).start()
""",
    "a callback": """
    ex = mpitask.Executor(1)
    ex.submit(work, 0).add_done_callback(
        lambda f: ex.submit(work, 1).add_done_callback(lambda f: ex.submit(work, 2)))
""",
}


@pytest.mark.parametrize("way", WAYS_TO_LEAVE)
@pytest.mark.parametrize("plain", [True, False])
def test_tasks_that_are_left_are_finished(launcher: Launcher, way: str, plain: bool) -> None:
    result = launcher.run(LEFT_OPEN.format(body=WAYS_TO_LEAVE[way]), plain=plain)
    assert result.rc == (1 if way == "an exception" else 0), result.err
    if way != "an exception" or plain:  # under `python -m mpitask` an exception drops them
        assert sorted(result.out.splitlines()) == ["did 0", "did 1", "did 2"], result.err


def test_ctrl_c_at_the_end_drops_what_is_left(launcher: Launcher) -> None:
    body = "ex = mpitask.Executor(1); fs = [ex.submit(time.sleep, 60) for i in range(3)]\n"
    body += "    while not fs[0].running(): time.sleep(0.01)\n"
    body += (
        "    real = mpitask.Engine.finish\n    mpitask.Engine.finish = lambda e: (print('left', flush=True), real(e))"
    )
    script = launcher.start(LEFT_OPEN.format(body=body), plain=True)
    script.wait_for_output("left")
    script.signal(signal.SIGINT)
    result = script.finish(30)
    assert "3 tasks were dropped" in result.err


MAPS = {
    "break": "for v in mpitask.map(square, itertools.count()):\n    if v == 400: break",
    "break, and the map is kept": "m = mpitask.map(square, itertools.count())\nfor v in m:\n    if v == 400: break",
    "an iterator that is kept": "it = iter(mpitask.map(square, itertools.count())); next(it)",
    "an iterable that blocks": "for v in mpitask.map(square, blocks(), chunksize=1): break",
    "in a block": "with mpitask.load():\n    it = iter(mpitask.map(square, itertools.count())); next(it)",
    "the error of a script": "for v in mpitask.map(square, itertools.count()): 1 / 0",
}


@pytest.mark.parametrize("way", MAPS)
def test_an_endless_map_that_is_left_ends(launcher: Launcher, way: str) -> None:
    source = f"""
import itertools, threading
import mpitask
def square(x): return x * x
def blocks():
    yield 1
    threading.Event().wait()
{MAPS[way]}
print("left")
"""
    result = launcher.run(source, timeout_s=60)
    if way == "the error of a script":
        assert result.rc == 1
        assert result.err.count("Traceback") == 1, result.err
    else:
        assert (result.rc, result.out, result.err) == (0, "left\n", "")


def test_a_map_that_nobody_reads_is_named(launcher: Launcher) -> None:
    source = """
import threading, mpitask
def blocks():
    yield 1
    threading.Event().wait()
m = mpitask.map(str, blocks())
"""
    script = launcher.start(source)
    script.wait_for_error("waiting for: <mpitask.MapFuture")
    script.signal(signal.SIGINT)
    assert script.finish(30).rc == 130


def test_threads_and_their_pools_end_first(launcher: Launcher) -> None:
    source = """
import concurrent.futures, threading, time
from mpitask import python_app
@python_app
def add(x): return x + 1
def go():
    threading.main_thread().join()
    print("thread", add(1).result(), flush=True)
threading.Thread(target=go).start()
pool = concurrent.futures.ThreadPoolExecutor(1)
pool.submit(time.sleep, 0.2)
pool.submit(lambda: print("pool", add(2).result(), flush=True))
"""
    result = launcher.run(source)
    assert (result.rc, sorted(result.out.splitlines())) == (0, ["pool 3", "thread 2"]), result.err


@pytest.mark.parametrize("last", ["pass", "1 / 0"])
def test_a_thread_that_does_not_end_is_named(launcher: Launcher, last: str) -> None:
    source = f"""
import threading
threading.Thread(target=threading.Event().wait, name="sleepy").start()
{last}
"""
    script = launcher.start(source)
    script.wait_for_error("not its threads: 'sleepy'")
    script.kill()


def test_the_reader_of_the_output_has_gone(launcher: Launcher) -> None:
    path = launcher.folder / "script.py"
    path.write_text("for i in range(100000): print(i)\n")
    words = [str(LOCAL_PYTHON), "-m", "mpitask", str(path)]
    command = f"set -o pipefail; {' '.join(words)} | head -1"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_signals_that_end(launcher: Launcher, number: int) -> None:
    source = """
import atexit, time
atexit.register(print, "in order")
print("begun", flush=True)
time.sleep(60)
"""
    script = launcher.start(source)
    script.wait_for_output("begun")
    script.signal(number)
    result = script.finish(30)
    assert (result.rc, result.out) == (128 + number, "begun\nin order\n")


def test_nohup_is_kept(launcher: Launcher) -> None:
    source = """
import os, signal
os.kill(os.getpid(), signal.SIGHUP)
print("goes on")
"""
    path = launcher.folder / "script.py"
    path.write_text(source)
    command = f"trap '' HUP; exec {LOCAL_PYTHON} -m mpitask {path}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


UNSEEN = """
import asyncio, sys, mpitask
@mpitask.python_app
def bad(x): raise ValueError(f"no {x}")
@mpitask.python_app
def need(x): return x
@mpitask.join_app
def joined(): return bad(7)
"""

WAYS_TO_LOOK = {
    "bad(1)": "1 task failed",
    "f = bad(1); g = bad(2); f.exception()": "1 task failed",
    "f = bad(1); f.exception()": "",
    "f = bad(1); need(f).exception()": "",
    "f = bad(1); need(f)": "1 task failed",
    "import concurrent.futures\nf = bad(1); concurrent.futures.wait([f]); f.why()": "",
    "import concurrent.futures\nf = bad(1); concurrent.futures.wait([f])": "1 task failed",
    "f = bad(1); f.add_done_callback(lambda f: f.exception())": "",
    "async def go():\n    try: await bad(1)\n    except ValueError: pass\nasyncio.run(go())": "",
    "joined()": "1 task failed",
    "joined().exception()": "",
    "for i in range(300): bad(i)": "more than 256 tasks failed",
    "fs = [bad(i) for i in range(5000)]\nfor f in fs: f.exception()": "",
}


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("way", WAYS_TO_LOOK)
def test_failures_that_nobody_looked_at_are_told(launcher: Launcher, way: str, plain: bool) -> None:
    way_in_block = "\n    ".join(way.splitlines())
    body = f"with mpitask.load(workers=2):\n    {way_in_block}" if plain else way
    result = launcher.run(UNSEEN + body, plain=plain)
    assert result.rc == 0, result.err
    expected = WAYS_TO_LOOK[way]
    if expected:
        assert result.err.count("\n") == 1
        number, word, _ = expected.rsplit(" ", 2)
        app = "joined" if way == "joined()" else "bad"
        assert f"{number} {word} ({number.removeprefix('more than ')} of {app}) failed, and nobody looked" in result.err
        assert "ValueError: no" in result.err
    else:
        assert not result.err


@pytest.mark.parametrize(("last", "rc"), [("", 1), ("f.exception()", 0), ("sys.exit(3)", 3)])
def test_failures_may_decide_the_exit_code(launcher: Launcher, last: str, rc: int) -> None:
    result = launcher.run(UNSEEN + f"f = bad(1)\n{last}\n", options=["--on-task-failure", "exit"])
    assert result.rc == rc, result.err


def test_tasks_that_are_dropped_are_counted(launcher: Launcher) -> None:
    source = """
import time, mpitask
fs = [mpitask.python_app(time.sleep)(60) for _ in range(5)]
while not fs[0].running(): time.sleep(0.01)
1 / 0
"""
    result = launcher.run(source)
    assert result.rc == 1
    assert "mpitask: 5 tasks that had not finished: dropped" in result.err


def test_ctrl_c_while_the_job_starts(launcher: Launcher) -> None:
    slow = launcher.folder / "cloudpickle.py"
    slow.write_text("import time\nprint('early', flush=True)\ntime.sleep(60)\n")
    variables = {"PYTHONPATH": str(launcher.folder), "PYTHONDONTWRITEBYTECODE": "1"}
    script = launcher.start("print('begun')", env=variables)
    script.wait_for_output("early")
    slow.unlink()
    script.signal(signal.SIGINT)
    result = script.finish(30)
    assert (result.rc, result.err) == (130, "mpitask: interrupted\n")
