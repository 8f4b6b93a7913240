"""`map` over ranks: every level cuts what it is given, and sends up one value."""

from __future__ import annotations

import pytest

from helpers.processes import Launcher, MpiStack

LIMIT_S = 240  # a quiet machine needs a fiftieth of it

# Ranks 0, 1 and 2 play one node, 3 and 4 another, of which rank 3 is a relay.
RANK = """
rank=${PMI_RANK:-$OMPI_COMM_WORLD_RANK}; export MPITASK_NODE=$((rank / 3)); exec "$@"
"""

SCRIPT = """
import operator, time
import mpitask

N = 300_000

def text(i):
    return f"{i},"

def same(i):
    return i

while mpitask.current().stats()["slots"] < 3:
    time.sleep(0.01)
print("list", mpitask.map(same, range(N)).result() == list(range(N)))
before = mpitask.current().stats()
print("sum", mpitask.map(same, range(N)).reduce(operator.add).result() == N * (N - 1) // 2)
after = mpitask.current().stats()
print("few tasks", after["submitted"] - before["submitted"] < 100)
print("few frames", after["frames_in"] - before["frames_in"] < 500)
words = mpitask.map(text, range(2000), chunksize=7).reduce(operator.add, initial="<").result()
print("order", words == "<" + "".join(map(text, range(2000))))
"""


@pytest.mark.timeout(LIMIT_S + 60)
def test_ranges_through_a_relay(launcher: Launcher, mpi: MpiStack) -> None:
    path = launcher.folder / "script.py"
    path.write_text(SCRIPT)
    words = [str(mpi.python), "-m", "mpitask", "--inline", str(path)]
    result = launcher.run(path, command=[mpi.mpiexec, "-n", "5", "sh", "-c", RANK, "sh", *words], timeout_s=LIMIT_S)
    assert result.rc == 0, result.err
    assert result.out.splitlines() == ["list True", "sum True", "few tasks True", "few frames True", "order True"]
