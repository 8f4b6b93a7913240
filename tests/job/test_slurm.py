"""Inside a real Slurm: what a job sees of its allocation, and MPI programs that tasks start.

MPITASK_TEST_SLURM is a command that makes a throw-away cluster (`tests/helpers/slurm-local`); `.ci/run` sets it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.processes import LAUNCHER_SETTINGS, MpiStack

SLURM = shlex.split(os.environ.get("MPITASK_TEST_SLURM", ""))
SETTINGS = {"UCX_NET_DEVICES": "lo", "FI_TCP_IFACE": "lo"}  # the cluster's nodes talk over the loopback interface


@pytest.fixture(scope="module")
def allocate() -> Iterator[list[str]]:
    """The beginning of a command line that runs the rest inside an allocation of two nodes of two cores."""
    if not SLURM:
        pytest.skip("MPITASK_TEST_SLURM is not set: no command that makes a Slurm cluster on this machine")
    folder = tempfile.mkdtemp(prefix="slurm-")  # paths of sockets must be short
    Path(folder).chmod(0o755)  # the authentication daemon insists
    command = ["env", f"SLURM_LOCAL_DIR={folder}/state", f"SLURM_LOCAL_PORT={27000 + os.getpid() % 1000}", *SLURM]
    subprocess.run([*command, "start", "2", "2"], timeout=200, check=True, stdout=subprocess.DEVNULL)
    try:
        yield [*command, "run", "salloc", "-Q", "-t", "3"]
    finally:
        subprocess.run([*command, "stop"], timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, command: list[str], source: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(source)
    environment = os.environ | LAUNCHER_SETTINGS | SETTINGS
    return subprocess.run(
        [*command, "script.py"], cwd=folder, env=environment, timeout=100, capture_output=True, text=True, check=False
    )


NESTED = """
import sys
from mpitask import bash_app
@bash_app
def nested(mpiexec, python, stdout=None):
    return f"{mpiexec} -n 2 {python} -c 'from mpi4py import MPI; print(MPI.COMM_WORLD.size)'"
assert nested(MPIEXEC, sys.executable, stdout="sizes").result() == 0
print(*"".join(open("sizes").read().split()))
"""


@pytest.mark.parametrize("ranks", [[], ["-n", "3"]])
def test_an_mpi_program_in_a_task(allocate: list[str], mpich: MpiStack, tmp_path: Path, ranks: list[str]) -> None:
    """It shares the processors of the job, which would wait for ever for ones of its own."""
    launch = [mpich.mpiexec, *ranks] if ranks else []
    command = [*allocate, "-N2", "-n4", *launch, str(mpich.python), "-m", "mpitask"]
    done = run(tmp_path, command, NESTED.replace("MPIEXEC", repr(mpich.mpiexec)))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 2\n"


def test_cores_are_those_of_the_allocation(allocate: list[str], mpich: MpiStack, tmp_path: Path) -> None:
    """This cluster, as some sites, does not bind processes to what it has allotted."""
    source = "import mpitask; print(mpitask.current().max_workers)"
    command = [*allocate, "-N1", "-n1", "srun", "-n1", str(mpich.python), "-m", "mpitask"]
    done = run(tmp_path, command, source)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_job_that_is_cancelled_blames_no_worker(allocate: list[str], mpich: MpiStack, tmp_path: Path) -> None:
    source = """
import os, subprocess, time
from mpitask import python_app
@python_app
def begins():
    open("begun", "w").close()
    time.sleep(100)
task = begins()
while not os.path.exists("begun"):
    time.sleep(0.01)
subprocess.run(["scancel", os.environ["SLURM_JOB_ID"]], check=True)
task.result()
"""
    done = run(tmp_path, [*allocate, "-N1", "-n2", "srun", "-n1", str(mpich.python), "-m", "mpitask"], source)
    assert done.returncode != 0
    assert "WorkerLost" not in done.stderr, done.stderr
