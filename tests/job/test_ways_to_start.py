"""Whatever `python` can run, `python -m mpitask` runs, with its `sys.argv` and `__main__`; it has all options."""

from __future__ import annotations

import dataclasses
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import LOCAL_PYTHON, MpiStack
from mpitask import Config
from mpitask.cli.options import config_of, parse
from mpitask.config import flag_of

WHAT = """
import sys
print(sys.argv, __name__, globals().get("__file__"), repr(globals().get("__spec__"))[:40], __package__ or "none")
print(sys.path[0])
"""
TASKS = """
import mpitask
class Box:
    def __init__(self, v): self.v = v
def helper(b): return Box(b.v * 2)
@mpitask.python_app
def app(b): return isinstance(b, Box), helper(b)
known, box = app(Box(4)).result()
assert known and type(box) is Box and box.v == 8
print("tasks ran")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Programs lie there."""
    return tmp_path


def lay_out(folder: Path, text: str) -> None:
    for name in ("pkg", "pkg/sub", "folder"):
        (folder / name).mkdir()
    for name in ("pkg/__init__.py", "pkg/sub/__init__.py"):
        (folder / name).write_text("")
    (folder / "pkg/near.py").write_text("value = 8\n")
    inner = "from .near import value\nfrom pkg import near\nassert near.value == value\n"
    (folder / "pkg/__main__.py").write_text(inner + text)
    for name in ("folder/__main__.py", "pkg/sub/mod.py", "plain.py"):
        (folder / name).write_text(text)
    with zipfile.ZipFile(folder / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", text)


def ways(text: str) -> list[tuple[list[str], str | None]]:
    words = [["plain.py"], ["./plain.py"], ["folder"], ["app.pyz"], ["-m", "pkg"], ["-m", "pkg.sub.mod"], ["-mplain"]]
    return [*((way, None) for way in words), (["-c", text], None), (["-"], text)]


def test_as_the_interpreter_does(folder: Path) -> None:
    lay_out(folder, WHAT)
    for way, stdin in ways(WHAT):
        outcomes = []
        for start in ([str(LOCAL_PYTHON)], [str(LOCAL_PYTHON), "-m", "mpitask", "--workers", "1"]):
            done = subprocess.run(
                [*start, *way, "--workers", "x", "-n", "3"],
                cwd=folder,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            outcomes.append(done.stdout.split("ModuleSpec")[0] + done.stdout.splitlines()[-1])
        assert outcomes[0] == outcomes[1], way


@pytest.mark.parametrize("ranks", [[], ["-n", "3"]])
def test_tasks_of_each(folder: Path, mpich: MpiStack, ranks: list[str]) -> None:
    lay_out(folder, TASKS)
    for way, stdin in ways(TASKS):
        done = subprocess.run(
            [str(mpich.python), "-m", "mpitask", *ranks, *way],
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "tasks ran\n"), (way, done.stderr)


@pytest.mark.parametrize(
    ("way", "text"),
    [
        (["-m"], "argument -m: expected one argument"),
        (["-m", "no_such_module"], "there is no module 'no_such_module'"),
        (["empty"], "no __main__.py in the folder 'empty'"),
        (["--run_dir", "x", "plain.py"], "did you mean --run-dir?"),
        (["--retry-handler", "plain", "plain.py"], "give MODULE:NAME"),
        (["--retry-handler", "plain:nothing", "plain.py"], "--retry-handler plain:nothing"),
        (["--checkpoint-mode", "often", "plain.py"], "invalid choice"),
        (["--retries", "many", "plain.py"], "--retries many: give a number"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, way: list[str], text: str) -> None:
    (folder / "empty").mkdir()
    (folder / "plain.py").write_text("import sys\n")
    done = subprocess.run(
        [str(LOCAL_PYTHON), "-m", "mpitask", *way], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert text in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


SAMPLES: dict[str, tuple[list[str], Any]] = {
    "workers": (["3"], 3),
    "inline": ([], True),
    "progress": (["spin"], "spin"),
    "retries": (["4"], 4),
    "loss_retries": (["5"], 5),
    "exit_mode": (["skip"], "skip"),
    "ring_bytes": (["65536"], 65536),
    "run_dir": (["runs"], "runs"),
    "retry_handler": (["operator:add"], __import__("operator").add),
    "std_autopath": (["operator:sub"], __import__("operator").sub),
    "app_cache": ([], True),
    "cache_failures": ([], True),
    "memoizer": (["operator:mul"], __import__("operator").mul),
    "checkpoint_mode": (["task_exit"], "task_exit"),
    "checkpoint_files": (["a"], ["a"]),
    "checkpoint_period": (["00:10:00"], "00:10:00"),
    "on_task_failure": (["exit"], "exit"),
    "hooks": (["operator:add"], [__import__("operator").add]),
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Config)])
def test_every_option_is_on_the_command_line(name: str) -> None:
    words, value = SAMPLES[name]
    _, target, given = parse([flag_of(name), *words, "-c", "pass"])
    assert getattr(config_of(given), name) == value
    assert target.args == []
