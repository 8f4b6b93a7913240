"""Started in a way that does something else than was meant: one line says so, with the command that does it."""

from __future__ import annotations

from pathlib import Path

from helpers.processes import LOCAL_PYTHON, Launcher, MpiStack
from mpitask import allocation

PROGRAM = """
import mpitask
@mpitask.python_app
def f(x): return x
with mpitask.load(workers=1):
    f(1).result()
"""


def test_a_program_that_is_started_several_times(launcher: Launcher, mpi: MpiStack) -> None:
    path = launcher.folder / "prog.py"
    path.write_text(PROGRAM)
    result = launcher.run(path, command=[mpi.mpiexec, "-n", "3", str(mpi.python), str(path)])
    assert result.rc == 0
    assert result.err.count("started this program 3 times") == 1, result.err
    assert "mpiexec -n 3 python -m mpitask" in result.err
    silent = launcher.run(path, command=[mpi.mpiexec, "-n", "2", str(mpi.python), "-m", "mpitask", str(path)])
    assert "times" not in silent.err
    path.unlink()


def test_nodes_that_nobody_uses(launcher: Launcher) -> None:
    path = launcher.folder / "prog.py"
    path.write_text(PROGRAM)
    environment = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    for words in ([str(path)], ["-m", "mpitask", "--workers", "1", str(path)]):
        result = launcher.run(path, command=[str(LOCAL_PYTHON), *words], env=environment)
        assert result.rc == 0
        assert result.err.count("has 2 nodes, and only this one runs tasks; `srun python -m mpitask") == 1, result.err
    path.unlink()


def test_how_many_nodes(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("one\none\ntwo\nthree 4 slots\n")
    assert allocation.nodes({"PBS_NODEFILE": str(hosts)}) == 3
    assert allocation.nodes({"LSB_HOSTS": "a a b"}) == 2
    assert allocation.nodes({"PBS_NODEFILE": str(tmp_path / "none")}) == 0
    assert allocation.nodes({}) == 0


def test_lines_of_workers_stay_whole(launcher: Launcher) -> None:
    """Also without buffers: one write for each line."""
    result = launcher.run(
        "import mpitask\n"
        "@mpitask.python_app\n"
        "def writes():\n"
        "    import os, sys\n"
        "    end, begin = os.pipe()\n"
        "    kept = os.dup(1)\n"
        "    os.dup2(begin, 1)\n"
        "    os.set_blocking(end, False)\n"
        "    print('a', 'b', flush=False)\n"
        "    sys.stdout.write('no line yet')\n"
        "    data = os.read(end, 100)\n"
        "    sys.stdout.write('\\n')\n"
        "    data += b'|' + os.read(end, 100)\n"
        "    os.dup2(kept, 1)\n"
        "    return data\n"
        "print(writes().result())\n",
        env={"PYTHONUNBUFFERED": "1"},
    )
    assert result.out == repr(b"a b\n|no line yet\n") + "\n", result.err
