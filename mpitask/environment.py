"""The process environment: launcher variables, number of cores."""

from __future__ import annotations

import os
from collections.abc import Mapping

LAUNCHER_PREFIXES = ("PMI_", "PMIX_", "OMPI_", "PRTE_", "HYDRA_", "MPI_LOCAL", "MPIEXEC_", "PALS_", "I_MPI_HYDRA")
"""Variables by which an MPI library recognises that a launcher has started the process."""


def scrub_launcher() -> None:
    """Removes launcher variables, so that an MPI program started by a task does not think it is a rank of this job."""
    for name in list(os.environ):
        if name.startswith(LAUNCHER_PREFIXES):
            del os.environ[name]


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The same without launcher variables."""
    return {name: value for name, value in environment.items() if not name.startswith(LAUNCHER_PREFIXES)}


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))
