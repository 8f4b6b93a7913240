"""`load()` in a script whose job runs already: its options hold, and tasks have around them what the script has."""

from __future__ import annotations

import pytest

from helpers.processes import Launcher, MpiStack

OPTIONS = """
import mpitask, os
from mpitask import python_app
@python_app(cache=True)
def f(x):
    open("ran", "a").write("x")
    return x + 1
@python_app
def fails_once(name):
    if not os.path.exists(name):
        open(name, "w").close()
        raise ValueError(name)
    return name
@python_app
def dies_once(name):
    if not os.path.exists(name):
        open(name, "w").close()
        os.kill(os.getpid(), 9)
    return name
@python_app
def submits(app, name):
    return app(name).result()
assert f(0).result() == 1  # before any load()
heard = []
for _ in range(2):
    with mpitask.load(checkpoint_mode="dfk_exit", run_dir="rd", hooks=[lambda *what: heard.append(what)]) as engine:
        assert [f(i).result() for i in range(1, 4)] == [2, 3, 4]
assert open("ran").read() == "xxxx", open("ran").read()
assert heard
with mpitask.load(retries=1):
    assert fails_once("a").result() == "a"
    assert submits(fails_once, "b").result() == "b"
with mpitask.load(loss_retries=1):
    assert dies_once("c").result() == "c"
try:
    fails_once("d").result()
except ValueError:
    print("options end with their block")
"""


CLEAN = """
import shutil
for name in ("a", "b", "c", "d", "ran", "rd", "one", "two"):
    shutil.rmtree(name) if os.path.isdir(name) else os.path.exists(name) and os.remove(name)
"""


def test_options_of_load_hold(launcher: Launcher, mpi: MpiStack) -> None:
    for ranks in (None, 2):
        result = launcher.run(OPTIONS + CLEAN, mpi=mpi if ranks else None, n=ranks)
        assert result.rc == 0, result.err
        assert result.out == "options end with their block\n"


def test_what_cannot_be_taken_over_is_named(launcher: Launcher) -> None:
    result = launcher.run(
        "import mpitask\n"
        "with mpitask.load(workers=2, ring_bytes=1 << 20): pass\n"
        "with mpitask.load(workers=1, ring_bytes=1 << 18): pass\n",
        options=["--workers", "1"],
    )
    assert result.rc == 0
    assert "load(workers=2) has no effect here: the job runs already, with workers=1; give --workers" in result.err
    assert "give --ring-bytes to `python -m mpitask`" in result.err
    assert len(result.err.splitlines()) == 2, result.err


AROUND = """
import logging, os, sys, warnings
import mpitask
from mpitask import python_app
def here():
    import logging, os, sys, warnings
    try:
        import found_here
        module = found_here.value
    except ImportError:
        module = None
    old = os.umask(0)
    os.umask(old)
    logging.getLogger("app").info("info-%s", os.getcwd()[-5:])
    warnings.warn("never shown", UserWarning)
    return os.getcwd(), os.environ.get("SETTING"), os.environ.get("TAKEN"), module, old, sys.getrecursionlimit()
app = python_app(here)
for name in ("one", "two"):
    os.makedirs(f"{name}/libs")
    open(f"{name}/libs/found_here.py", "w").write(f"value = {name!r}")
start, path = os.getcwd(), list(sys.path)
class Quiet(UserWarning): pass
def enter(name):
    os.chdir(os.path.join(start, name))
    os.environ["SETTING"] = name
    os.environ.pop("TAKEN", None)
    sys.path[:] = [os.path.join(os.getcwd(), "libs"), *path]
    os.umask(0o27 if name == "one" else 0o7)
    sys.setrecursionlimit(2000 if name == "one" else 3000)
    sys.modules.pop("found_here", None)
logging.basicConfig(level=logging.INFO, format="LOG:%(message)s", stream=sys.stdout)
warnings.simplefilter("ignore", UserWarning)
enter("one")
import importlib
def wanted():
    return here()
with mpitask.load():
    got, expected = app().result(), wanted()
    assert got == expected, (got, expected)
    os.environ["SETTING"] = "later"  # like a process pool: workers have what was there at the first call
    assert app().result()[1] == "one"
enter("two")
with mpitask.load():
    got = app().result()
    assert got[:3] == (os.getcwd(), "two", None) and got[4:] == (0o7, 3000), got
logging.shutdown()
os.chdir(start)
"""


@pytest.mark.parametrize("ranks", [None, 3])
def test_tasks_have_what_the_script_has(launcher: Launcher, mpich: MpiStack, ranks: int | None) -> None:
    result = launcher.run(AROUND + CLEAN, mpi=mpich if ranks else None, n=ranks, env={"TAKEN": "1"})
    assert result.rc == 0, result.err
    assert "LOG:info-" in result.out
    assert "never shown" not in result.err
