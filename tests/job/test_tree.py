"""The tree in real jobs: over pretended nodes on this machine, and over several hosts where a cluster can be made."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.processes import LAUNCHER_SETTINGS, MARK, ROOT, Launcher, MpiStack
from mpitask.tree import find_place

CLUSTER = shlex.split(os.environ.get("MPITASK_TEST_CLUSTER", ""))
"""A command that makes hosts on this machine, each with a name, a network and a /dev/shm of its own. `up K` prints the
path of a file; beside it lies `ssh`, a program to reach the hosts. `exec I COMMAND...` runs it on host I; `down`."""
LIMIT_S = 240  # a quiet machine needs a fiftieth of it; one on which much else runs may need most
N_NODES, RANKS_PER_NODE = 3, 4
N = N_NODES * RANKS_PER_NODE
BLOCKS = [rank // RANKS_PER_NODE * RANKS_PER_NODE for rank in range(N)]
CYCLE = [rank % N_NODES for rank in range(N)]

# Starts the command line with this rank's log and node; $0 is where logs go, $1 how the node's name is found.
RANK = """
rank=${PMI_RANK:-$OMPI_COMM_WORLD_RANK}; logs=$0; eval "$1"; shift
exec "$@" 2>"$logs/$rank.log"
"""

SCRIPT = """
import os, socket
import numpy as np
from mpitask import current, python_app

@python_app
def where(i):
    return i, socket.gethostname(), os.getpid()

@python_app
def double(a):
    a *= 2
    return a

@python_app
def total(arrays):
    return sum(float(a.sum()) for a in arrays)

got = [f.result() for f in [where(i) for i in range(400)]]
print("numbers", [i for i, _, _ in got] == list(range(400)))
big = [np.full(100_000 + i, i, dtype=np.float64) for i in range(4)]
twice = [double(double(a)) for a in big]
print("arrays", total(twice).result() == sum(4.0 * i * (100_000 + i) for i in range(4)))
print("read", all((f.result() == 4 * i).all() for i, f in enumerate(twice)))
stats = current().stats()
print("root", stats["neighbours"], stats["bells"])
"""


@dataclass
class Said:
    """What a rank has said about its place."""

    host: str
    parent: int
    local: list[int]
    remote: list[int]
    bells: list[int]


def read_logs(folder: Path) -> dict[int, Said]:
    pattern = (
        r"rank (\d+) of \d+ on (\S+): parent (-?\d+), children on this node (\[.*?\]), on others (\[.*?\]), "
        r"bells of (\[.*?\])"
    )
    said = {}
    for path in folder.iterdir():
        text = path.read_text()
        match = re.search(pattern, text)
        assert match, f"{path.name}: {text}"
        rank, host, parent, *lists = match.groups()
        local, remote, bells = ([int(n) for n in re.findall(r"\d+", words)] for words in lists)
        assert int(rank) == int(path.stem)
        said[int(rank)] = Said(host, int(parent), local, remote, bells)
    return said


def check_places(said: dict[int, Said], leaders: list[int], fanout: int) -> None:
    """Every rank is where the function puts it, and rings its neighbours on its own node and nobody else."""
    assert sorted(said) == list(range(len(leaders)))
    for rank, place in said.items():
        expected = find_place(rank, leaders, fanout)
        assert (place.parent, tuple(place.local), tuple(place.remote)) == (
            expected.parent,
            expected.local_children,
            expected.remote_children,
        )
        neighbours = [other for other in (place.parent, *place.local, *place.remote) if other >= 0]
        assert place.bells == sorted(other for other in neighbours if leaders[other] == leaders[rank])


def check_output(out: str, leaders: list[int], fanout: int) -> None:
    root = find_place(0, leaders, fanout)
    expected = ["numbers True", "arrays True", "read True"]
    assert out.splitlines() == [*expected, f"root {len(root.children)} {len(root.local_children)}"]


@pytest.mark.writes
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize(("dealt", "fanout"), [("blocks", 1), pytest.param("cycle", 64, marks=pytest.mark.long)])
def test_pretended_nodes(launcher: Launcher, mpi: MpiStack, dealt: str, fanout: int) -> None:
    """Three levels of ranks on one machine: relays pass on tasks, arrays, results and the end."""
    leaders = {"blocks": BLOCKS, "cycle": CYCLE}[dealt]
    node = {"blocks": f"rank / {RANKS_PER_NODE}", "cycle": f"rank % {N_NODES}"}[dealt]
    logs = launcher.folder / "logs"
    logs.mkdir()
    path = launcher.folder / "script.py"
    path.write_text(SCRIPT)
    wrapper = ["sh", "-c", RANK, str(logs), f"export MPITASK_NODE=$(({node}))"]
    words = [str(mpi.python), "-m", "mpitask", "--inline", "--fanout", str(fanout), str(path)]
    result = launcher.run(
        path, command=[mpi.mpiexec, "-n", str(N), *wrapper, *words], env={"MPITASK_LOG": "debug"}, timeout_s=LIMIT_S
    )
    assert result.rc == 0, f"{result.err} {[log.read_text() for log in logs.iterdir()]}"
    check_output(result.out, leaders, fanout)
    check_places(read_logs(logs), leaders, fanout)


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Hosts n0, n1, n2 for the tests of this module; gives the program that reaches them."""
    if not CLUSTER:
        pytest.skip("MPITASK_TEST_CLUSTER is not set: no command that makes several hosts on this machine")
    with (tmp_path_factory.getbasetemp().parent / "hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the same test run may be using them
        done = subprocess.run([*CLUSTER, "up", str(N_NODES)], capture_output=True, text=True, timeout=100, check=False)
        try:
            if done.returncode != 0:
                pytest.fail(f"{CLUSTER[-1]} makes no hosts here: {done.stderr.strip()}")
            yield str(Path(done.stdout.split()[-1]).parent / "ssh")
        finally:
            subprocess.run([*CLUSTER, "down"], capture_output=True, timeout=100, check=False)


def start_words(mpi: MpiStack, ssh: str, dealt: str) -> list[str]:
    """The launcher, which deals four ranks to each of three hosts."""
    hosts = [f"n{i}" for i in range(N_NODES)]
    if mpi.name == "mpich":
        each = {"blocks": RANKS_PER_NODE, "cycle": 1}[dealt]
        return [
            *(mpi.mpiexec, "-launcher", "ssh", "-launcher-exec", ssh),
            *("-hosts", ",".join(hosts), "-ppn", str(each), "-n", str(N)),
        ]
    return [
        *(mpi.mpiexec, "--prtemca", "plm_ssh_agent", ssh),
        *("--host", ",".join(f"{host}:{RANKS_PER_NODE}" for host in hosts)),
        *("--map-by", f"ppr:{RANKS_PER_NODE}:node:oversubscribe", "--bind-to", "none", "-n", str(N)),
    ]


@pytest.mark.writes
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize(
    ("name", "dealt", "fanout"), [("mpich", "cycle", 1), ("openmpi", "blocks", 64)], ids=["mpich", "openmpi"]
)
def test_several_hosts(
    launcher: Launcher, ssh: str, request: pytest.FixtureRequest, name: str, dealt: str, fanout: int
) -> None:
    """Names, networks and shared memory of their own, but one kernel: bells stay within a host."""
    mpi: MpiStack = request.getfixturevalue(name)
    leaders = {"blocks": BLOCKS, "cycle": CYCLE}[dealt]
    logs = launcher.folder / "logs"
    logs.mkdir()
    path = launcher.folder / "script.py"
    path.write_text(SCRIPT)
    # Not every launcher hands the environment on to other hosts.
    settings = LAUNCHER_SETTINGS | {MARK: launcher.mark, "MPITASK_LOG": "debug", "PYTHONPATH": str(ROOT)}
    wrapper = ["env", *(f"{k}={v}" for k, v in settings.items()), "sh", "-c", RANK, str(logs), "true"]
    words = [str(mpi.python), "-m", "mpitask", "--inline", "--fanout", str(fanout), str(path)]
    result = launcher.run(
        path, command=[*CLUSTER, "exec", "0", *start_words(mpi, ssh, dealt), *wrapper, *words], timeout_s=LIMIT_S
    )
    assert result.rc == 0, f"{result.err} {[log.read_text() for log in logs.iterdir()]}"
    check_output(result.out, leaders, fanout)
    said = read_logs(logs)
    check_places(said, leaders, fanout)
    assert [said[rank].host for rank in range(N)] == [f"n{sorted(set(leaders)).index(leader)}" for leader in leaders]


MANY = """
import time
from mpitask import current, python_app

@python_app
def square(x):
    return x * x

n_ranks, n_tasks = {n_ranks}, {n_tasks}
while current().stats()["slots"] < n_ranks - 1:
    time.sleep(0.01)
print(sum(f.result() for f in [square(i) for i in range(n_tasks)]) == sum(i * i for i in range(n_tasks)))
print(current().stats()["bells"] == n_ranks - 1)
"""


def run_many(launcher: Launcher, mpi: MpiStack, n_ranks: int, n_tasks: int, limit_s: float, *options: str) -> None:
    """Every rank comes up, all results are right, the job ends in order and leaves nothing."""
    source = MANY.format(n_ranks=n_ranks, n_tasks=n_tasks)
    result = launcher.run(source, n=n_ranks, mpi=mpi, options=options, timeout_s=limit_s)
    assert (result.rc, result.out) == (0, "True\nTrue\n"), result.err


@pytest.mark.long
@pytest.mark.timeout(LIMIT_S + 60)
def test_two_dozen_ranks(launcher: Launcher, mpich: MpiStack) -> None:
    run_many(launcher, mpich, 24, 10_000, LIMIT_S, "--inline")


@pytest.mark.long
@pytest.mark.timeout(LIMIT_S + 60)
def test_a_script_that_ends_before_its_workers_are_there(launcher: Launcher, mpich: MpiStack) -> None:
    """36 processes are still starting on a few cores when they are told to end: that takes as long as it takes."""
    result = launcher.run("print('ran')", n=13, mpi=mpich, options=["--workers", "1"], timeout_s=LIMIT_S)
    assert (result.rc, result.out, result.err) == (0, "ran\n", "")


@pytest.mark.long
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("options", [["--inline"], ["--workers", "1"]])
def test_256_ranks(launcher: Launcher, mpich: MpiStack, options: list[str]) -> None:
    run_many(launcher, mpich, 256, 100_000, 1900, *options)
