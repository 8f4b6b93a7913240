"""Starting wrongly: one clear message with the remedy, and no N jobs writing the same files."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.processes import LOCAL_PYTHON, Launcher, MpiStack

HELLO = "from mpitask import python_app\nopen('side-effect', 'a').write('x')\n"


def test_wrong_launcher_family(launcher: Launcher, mpich: MpiStack, openmpi: MpiStack) -> None:
    path = launcher.folder / "script.py"
    path.write_text(HELLO)
    for theirs, ours in ((openmpi, mpich), (mpich, openmpi)):
        result = launcher.run(path, command=[theirs.mpiexec, "-n", "3", str(ours.python), "-m", "mpitask", str(path)])
        assert result.rc != 0
        assert result.err.count("mpitask: ") == 1, result.err
        assert "Use that MPI's own mpiexec" in result.err


def test_singletons_are_refused(launcher: Launcher, mpich: MpiStack) -> None:
    """As under `srun --mpi=none`: the launcher says 4, MPI says 1."""
    environment = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}
    result = launcher.run(HELLO, mpi=mpich, env=environment)
    assert result.rc == 2
    assert "has started 4 processes, but each of them is alone" in result.err
    silent = launcher.run(HELLO, mpi=mpich, env=environment | {"SLURM_PROCID": "3"})
    assert (silent.rc, silent.err) == (2, "")


def test_no_mpi_library(launcher: Launcher, mpich: MpiStack) -> None:
    environment = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI4PY_LIBMPI": "/nowhere/libmpi.so"}
    result = launcher.run(HELLO, mpi=mpich, env=environment)
    assert result.rc == 2
    assert "no MPI library can be loaded" in result.err
    assert "pip install 'mpitask[mpich]'" in result.err


def test_mixed_versions(launcher: Launcher, mpich: MpiStack) -> None:
    """Ranks with different mpitask versions refuse to work together."""
    path = launcher.folder / "script.py"
    path.write_text(
        "import os, runpy, sys\n"
        "import mpitask._version as v\n"
        "if os.environ.get('PMI_RANK') == '2': v.__version__ = '9.9'\n"
        "sys.argv = ['mpitask', 'script.py']\n"
        "open('script.py.ran', 'a') if False else None\n"
        "from mpitask.cli import main; main()\n"
    )
    result = launcher.run(path, command=[mpich.mpiexec, "-n", "3", str(mpich.python), str(path)])
    assert result.rc == 2
    assert result.err.count("do not fit together") == 1, result.err
    assert "rank 2 on" in result.err
    assert "has mpitask 9.9" in result.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--wrokers", "2", "script.py"], "did you mean --workers?"),
        (["--workers", "two", "script.py"], "give a number or auto"),
        (["--workers", "0", "script.py"], "give a number from 1 to"),
        (["--progress", "fast", "script.py"], "choose from"),
        (["--inline", "--workers", "3", "script.py"], "inline=True means one worker"),
        (["-n", "0", "script.py"], "-n 0: give a number of ranks"),
        (["nosuch.py"], "there is no script 'nosuch.py'"),
        ([], "required: script"),
    ],
)
def test_bad_command_lines(launcher: Launcher, words: list[str], text: str) -> None:
    (launcher.folder / "script.py").write_text("print('ran')")
    result = launcher.run(Path("script.py"), command=[str(LOCAL_PYTHON), "-m", "mpitask", *words])
    assert result.rc == 2
    assert text in result.err, result.err
    assert result.out == ""
    assert "Traceback" not in result.err


def test_help_and_version(launcher: Launcher) -> None:
    shown = launcher.run(Path("x"), command=[str(LOCAL_PYTHON), "-m", "mpitask", "--help"])
    assert shown.rc == 0
    assert "mpiexec -n 3 python -m mpitask script.py" in shown.out
    version = launcher.run(Path("x"), command=[str(LOCAL_PYTHON), "-m", "mpitask", "--version"])
    assert version.out.startswith("mpitask 0.")


def test_worker_that_cannot_start(launcher: Launcher) -> None:
    """A broken environment gives a message with the remedy, not a hang."""
    source = """
import sys, mpitask
from mpitask import load, python_app
@python_app
def f(): return 1
import mpitask.driver as d
d._ZYGOTE = "import sys; sys.exit(1)"
with load(workers=1):
    f().result(timeout=60)
"""
    result = launcher.run(source, plain=True, timeout_s=30)
    assert result.rc == 1
    assert "no worker process could be started" in result.err


def test_traceback_shows_the_script_only(launcher: Launcher) -> None:
    result = launcher.run("def f():\n    raise KeyError('x')\nf()\n")
    assert result.rc == 1
    assert result.err.startswith("Traceback (most recent call last):\n")
    assert "cli" not in result.err
    assert "script.py" in result.err
