"""Engines that nobody refers to any more, while threads of theirs go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OUTLIVED = """
import gc, threading, weakref, mpitask
threading.began, threading.may_end = threading.Event(), threading.Event()

def task():
    import threading
    threading.began.set()
    threading.may_end.wait()

def fail():
    with mpitask.load(mpitask.Config(inline=True)):
        mpitask.python_app(task)()
        threading.began.wait(60)
        gone.append(weakref.ref(mpitask.current()))
        raise KeyError

gone = []
try:
    fail()
except KeyError:
    pass
gc.collect()
assert gone[0]() is None
threads = [thread for thread in threading.enumerate() if thread.name.startswith("mpitask-inline")]
threading.may_end.set()
for thread in threads:
    thread.join(60)
print(len(threads), "outlived it")
"""


def test_an_inline_task_may_outlive_its_engine(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(OUTLIVED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "1 outlived it\n"), done.stderr


LOADED_AGAIN = """
import gc, os, mpitask
gc.disable()

@mpitask.python_app
def f(x):
    return x + 1

def descriptors():
    return len(os.listdir("/proc/self/fd"))

for i in range(12):
    with mpitask.load(workers=1):
        assert f(i).result() == i + 1
    if i == 2:
        before = descriptors()
print(descriptors() - before)
"""


def test_closed_engines_go_without_a_look_for_cycles(tmp_path: Path) -> None:
    """Each has a descriptor, and the memory of its workers."""
    script = tmp_path / "script.py"
    script.write_text(LOADED_AGAIN)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
