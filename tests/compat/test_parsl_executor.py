"""mpitask as an executor of the real Parsl."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os
import parsl
from parsl import python_app, bash_app, join_app
from parsl.config import Config
from mpitask.compat.parsl_executor import MPITaskExecutor

@python_app
def add(a, b):
    return a + b

@python_app
def pid():
    import os
    return os.getpid()

@python_app
def fail():
    raise KeyError("boom")

@bash_app
def echo(words, stdout=None):
    return f"echo {words}"

config = Config(executors=[MPITaskExecutor(workers=2)], run_dir="runs", usage_tracking=0)
print(config.executors[0])
with parsl.load(config):
    print(add(add(1, 2), 3).result())
    print(sum(add(i, i).result() for i in range(100)))
    assert pid().result() != os.getpid()
    print(echo("hi", stdout="out.txt").result(), open("out.txt").read().strip())
    try:
        fail().result()
    except KeyError as error:
        print("KeyError", error)
    try:
        add(fail(), 1).result()
    except parsl.dataflow.errors.DependencyError:
        print("DependencyError")
print("end")
"""

EXPECTED = """MPITaskExecutor(label='mpitask', workers=2)
6
9900
0 hi
KeyError 'boom'
DependencyError
end
"""


@pytest.mark.parametrize("way", ["plain", "job"])
def test_an_unchanged_kernel_runs_on_it(tmp_path: Path, way: str) -> None:
    pytest.importorskip("parsl", reason="pip install parsl")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"] if way == "plain" else [sys.executable, "-m", "mpitask", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == EXPECTED
