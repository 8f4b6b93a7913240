"""Checkpoints of memoised calls: what one process writes and the next one reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from apps_helpers import Counted

from helpers.processes import Launcher
from mpitask import (
    BasicMemoizer,
    Engine,
    python_app,
)
from mpitask.memo import BadCheckpoint, get_all_checkpoints

pytestmark = pytest.mark.usefixtures("engine")

SCRIPT = """
import os, time
from pathlib import Path
import mpitask
from mpitask import BasicMemoizer, python_app
from mpitask.memo import load_checkpoints

@python_app(cache=True)
def square(x, runs):
    with open(runs, "a") as file:
        file.write("x")
    if x < 0:
        raise ValueError(x)
    return {"square": x * x}

def safe():
    found = list(Path(mode).glob("*/checkpoint/tasks.memo"))
    return len(load_checkpoints(found)) if found else 0

for mode in ("dfk_exit", "periodic", "manual", "task_exit"):
    period = "00:00:01" if mode == "periodic" else None
    memoizer = BasicMemoizer(checkpoint_mode=mode, checkpoint_period=period)
    with mpitask.load(inline=True, memoizer=memoizer, run_dir=mode) as engine:
        futures = [square(x, f"{mode}.runs") for x in (1, 2, 3, 1)]
        assert [f.result()["square"] for f in futures] == [1, 4, 9, 1]
        assert isinstance(square(-1, f"{mode}.runs").exception(), ValueError)
        if mode == "manual":
            memoizer.checkpoint()
            assert safe() == 3
        deadline = time.monotonic() + 60
        while mode in ("periodic", "task_exit") and safe() != 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        print(mode, safe(), *(f.task_status() for f in futures[:3]), flush=True)
        if mode == "task_exit":
            os._exit(7)
"""


@pytest.mark.writes
def test_checkpoints_are_read_by_the_next_process(launcher: Launcher, tmp_path: Path) -> None:
    modes = {"dfk_exit": 0, "periodic": 3, "manual": 3, "task_exit": 3}  # how many are safe before the end
    first = launcher.run(SCRIPT, plain=True)
    assert first.rc == 7, first.err
    assert first.out.splitlines() == [f"{mode} {safe}" + " exec_done" * 3 for mode, safe in modes.items()]
    second = launcher.run(SCRIPT, plain=True)
    assert [line.split()[2:] for line in second.out.splitlines()] == [["memo_done"] * 3] * 4, second.err
    for mode in modes:
        assert (tmp_path / f"{mode}.runs").read_text() == "x" * 5  # exceptions are remembered for one run only
        assert [Path(path).parent.name for path in get_all_checkpoints(tmp_path / mode)] == ["000", "001"]


EDITED = """
import mpitask
from mpitask import python_app
import helper_module

def helper(x):
    return x + {helper}

@python_app(cache=True{options})
def answer(x):
    return helper(x) * {factor} + helper_module.more()

with mpitask.load(inline=True, checkpoint_mode="task_exit") as engine:
    future = answer(1)
    print(future.result(), future.task_status())
"""


@pytest.mark.writes
def test_a_checkpoint_is_of_the_function_as_it_is(launcher: Launcher, tmp_path: Path) -> None:
    def run(more: int = 0, options: str = "", **edit: int) -> str:
        (tmp_path / "helper_module.py").write_text(f"def more():\n    return {more}{' ' * more}\n")
        done = launcher.run(EDITED.format(options=options, **({"helper": 1, "factor": 1} | edit)), plain=True)
        assert done.rc == 0, done.err
        return done.out.strip()

    assert [run(), run()] == ["2 exec_done", "2 memo_done"]
    assert [run(factor=3), run(helper=2), run(more=5)] == ["6 exec_done", "3 exec_done", "7 exec_done"]
    assert [run(), run(factor=3)] == ["2 memo_done", "6 memo_done"]
    named = ", cache_key='name'"
    assert [run(options=named), run(options=named, factor=3)] == ["2 exec_done", "2 memo_done"]


def test_checkpoint_options_of_the_configuration(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    app = Counted(tmp_path / "runs", lambda x: x)
    for _ in range(2):
        engine = make_engine(inline=True, checkpoint_mode="dfk_exit")
        again = python_app(app.app.__wrapped__, cache=True, data_flow_kernel=engine)
        assert again(5).result(timeout=60) == 5
        assert engine.close()
    assert app.runs == 1
    files = get_all_checkpoints(tmp_path / "runinfo")
    assert len(files) == 2
    engine = make_engine(inline=True, checkpoint_files=files[:1])
    assert python_app(app.app.__wrapped__, cache=True, data_flow_kernel=engine)(5).result(timeout=60) == 5
    assert app.runs == 1


def test_a_bad_checkpoint_is_told_of_at_the_first_call(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make_engine(inline=True, checkpoint_files=[str(tmp_path / "nothing")])
    with pytest.raises(BadCheckpoint):
        python_app(lambda: 1, cache=True, data_flow_kernel=engine)()
    assert python_app(lambda: 1, data_flow_kernel=engine)().result(timeout=60) == 1


def test_nothing_is_written_without_need(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make_engine(inline=True)
    python_app(lambda: 1, cache=True, data_flow_kernel=engine)().result(timeout=60)
    engine.close()
    assert not (tmp_path / "runinfo").exists()
    assert BasicMemoizer().checkpoint_mode is None
