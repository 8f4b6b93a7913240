"""How long until a fresh program has its first result, from the start of its process to the printed line.

python benchmarks/start.py local            # python -m mpitask script.py
python benchmarks/start.py mpiexec          # mpiexec -n 3 python -m mpitask script.py
python benchmarks/start.py ppe              # the same program on ProcessPoolExecutor
python benchmarks/start.py mpi_only         # mpiexec -n 3 python: MPI started by mpi4py, a barrier, nothing else
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import mpiexec

SCRIPTS = {
    "mpitask": """
from mpitask import python_app
@python_app
def noop(x):
    return x
print(noop(1).result(), flush=True)
""",
    "ppe": """
from concurrent.futures import ProcessPoolExecutor
def noop(x):
    return x
with ProcessPoolExecutor(2) as executor:
    print(executor.submit(noop, 1).result(), flush=True)
""",
    "mpi_only": """
from mpi4py import MPI
MPI.COMM_WORLD.Barrier()
if MPI.COMM_WORLD.rank == 0:
    print(1, flush=True)
""",
}


def command(way: str, script: str) -> list[str]:
    return {
        "local": [sys.executable, "-m", "mpitask", "--workers", "2", script],
        "mpiexec": [mpiexec(), "-n", "3", sys.executable, "-m", "mpitask", "--workers", "1", script],
        "ppe": [sys.executable, script],
        "mpi_only": [mpiexec(), "-n", "3", sys.executable, script],
    }[way]


def main(way: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(SCRIPTS.get(way, SCRIPTS["mpitask"]))
        start = time.perf_counter()
        with subprocess.Popen(command(way, str(script)), stdout=subprocess.PIPE, env=dict(os.environ)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            first = time.perf_counter() - start
        whole = time.perf_counter() - start
    assert process.returncode == 0
    print(json.dumps({"system": way, "case": "start", "n": 1, "first_result_s": first, "whole_s": whole}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
