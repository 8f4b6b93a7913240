"""What a batch system has given to the job that this process belongs to, as far as its variables say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_COUNTS = ("SLURM_JOB_NUM_NODES", "SLURM_NNODES", "FLUX_JOB_NNODES")
_FILES = ("PBS_NODEFILE", "LSB_DJOB_HOSTFILE", "COBALT_NODEFILE", "PE_HOSTFILE", "OAR_NODEFILE")


def nodes(environment: Mapping[str, str] = os.environ) -> int:
    """How many nodes the allocation has; 0: there is none, or nobody says."""
    for name in _COUNTS:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    for name in _FILES:
        try:
            lines = Path(environment[name]).read_text().splitlines()
        except (KeyError, OSError, UnicodeDecodeError):
            continue
        return len({line.split()[0] for line in lines if line.strip()})
    return len(set(environment.get("LSB_HOSTS", "").split()))


def unused_nodes(command: str) -> str | None:
    """In a line: this process is alone in an allocation of several nodes. None: it is not."""
    count = nodes()
    if count < 2:
        return None
    launcher = "srun" if "SLURM_JOB_ID" in os.environ or "SLURM_NNODES" in os.environ else f"mpiexec -n {count + 1}"
    return f"this allocation has {count} nodes, and only this one runs tasks; `{launcher} {command}` uses them all"
