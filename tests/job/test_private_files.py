"""What a run writes by itself belongs to its user alone, whatever the umask."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.processes import Launcher

NATIVE = """
import os
os.umask(0)
import mpitask
from mpitask import AUTO_LOGNAME, bash_app, python_app

@python_app(cache=True)
def square(x, stdout=AUTO_LOGNAME):
    print(x)
    return x * x

@bash_app
def say(stdout=AUTO_LOGNAME, stderr=AUTO_LOGNAME):
    return "echo said; umask"

with mpitask.load(workers=1, checkpoint_mode="task_exit", run_dir="above/runs") as engine:
    end = mpitask.set_file_logger("logs/run.log")
    said = say()
    assert (square(3).result(), said.result()) == (9, 0)
    assert isinstance(said.stdout, str)
    print(open(said.stdout).read())
end()
"""

PARSL = """
import os
os.umask(0)
import parsl
from parsl.config import Config
from parsl.dataflow.memoization import BasicMemoizer

@parsl.bash_app(cache=True)
def say(stdout=parsl.AUTO_LOGNAME):
    return "echo said"

with parsl.load(Config(memoizer=BasicMemoizer(checkpoint_mode="task_exit"), run_dir="above/runs")):
    assert say().result() == 0
"""


@pytest.mark.writes
@pytest.mark.parametrize(("script", "names"), [(NATIVE, "tasks.memo run.log"), (PARSL, "tasks.pkl parsl.log")])
def test_files_of_a_run_are_private(launcher: Launcher, tmp_path: Path, script: str, names: str) -> None:
    options = ["--parsl"] if script is PARSL else []
    done = launcher.run(script, plain=script is NATIVE, options=options)
    assert done.rc == 0, done.err
    made = [path for top in ("above", "logs") for path in (tmp_path / top).rglob("*")]
    made += [path for top in ("above", "logs") if (path := tmp_path / top).exists()]
    found = {path.name for path in made}
    assert {*names.split()} <= found
    assert any(name.endswith(".stdout") for name in found)
    wrong = {str(path): oct(path.stat().st_mode & 0o777) for path in made if path.stat().st_mode & 0o077}
    assert wrong == {}
