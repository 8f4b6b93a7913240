"""The process environment: launcher variables, number of cores, threads of libraries."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_LAUNCHER_FAMILIES = ("PMI_", "PMIX_", "PRTE_", "OMPI_COMM_WORLD_", "OMPI_WORLD_", "MPI_LOCAL", "HYDI_", "PALS_")
"""Prefixes of what a launcher tells each process that it has started."""
_LAUNCHER_NAMES = frozenset(
    {
        *("OMPI_ARGV", "OMPI_COMMAND", "OMPI_FILE_LOCATION", "OMPI_FIRST_RANKS", "OMPI_LIBDIR_LOC", "OMPI_NUM_APP_CTX"),
        *("OMPI_APP_CTX_NUM_PROCS", "OMPI_TOOL_NAME", "OMPI_UNIVERSE_SIZE", "OMPI_VERSION", "OPAL_USER_PARAMS_GIVEN"),
        *("OMPI_MCA_PREFIXES", "OMPI_MCA_cpu_type", "OMPI_MCA_initial_wdir", "OMPI_MCA_num_procs"),
        *("HYDRA_CONTROL_FD", "MPIEXEC_ALLOW_ROOT_INTERNAL", "I_MPI_HYDRA_UUID", "GFORTRAN_UNBUFFERED_PRECONNECTED"),
    }
)
_LAUNCHER_SETTINGS = ("OMPI_MCA_ess", "OMPI_MCA_orte_")
_USERS_SETTINGS = ("PMIX_MCA_", "PRTE_MCA_")
"""Of those families, what people set for all that they start, as OMPI_MCA_* and HYDRA_*: it stays."""


def _is_launchers(name: str) -> bool:
    if name in _LAUNCHER_NAMES or name.startswith(_LAUNCHER_SETTINGS):
        return True
    return name.startswith(_LAUNCHER_FAMILIES) and not name.startswith(_USERS_SETTINGS)


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The same without what a launcher has told this process: an MPI program started in it is no rank of this job.

    What users set for their MPI (`OMPI_MCA_*`, `OMPI_ALLOW_RUN_AS_ROOT`, `PRTE_MCA_*`, `HYDRA_IFACE`) stays. In an
    allocation of Slurm an `mpiexec` would wait for processors that this job holds already: SLURM_OVERLAP lets its
    `srun` share them, as a task shares those of its worker.
    """
    kept = {name: value for name, value in environment.items() if not _is_launchers(name)}
    if "SLURM_JOB_ID" in kept:
        kept.setdefault("SLURM_OVERLAP", "1")
    return kept


def scrub_launcher(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes an environment such a one."""
    kept = without_launcher(environment)
    for name in list(environment):
        if name not in kept:
            del environment[name]
    environment.update(kept)


def usable_cores() -> int:
    """Cores that this process may use: those it may run on, but no more than the batch system or a cgroup allots."""
    return allotted_cores(len(os.sched_getaffinity(0)))


def allotted_cores(present: int) -> int:
    """Of so many cores of this node, how many the batch system's variables and the cgroup leave to the job; 1 or more.

    Not every batch system binds processes to what it has allotted, so that the affinity alone would say too much.
    """
    limits = [present]
    for name in ("SLURM_CPUS_ON_NODE", "NCPUS" if "PBS_JOBID" in os.environ else ""):
        if os.environ.get(name, "").isdigit():
            limits.append(int(os.environ[name]))
    if os.environ.get("NHOSTS") == "1" and os.environ.get("NSLOTS", "").isdigit():  # Grid Engine
        limits.append(int(os.environ["NSLOTS"]))
    words = os.environ.get("LSB_MCPU_HOSTS", "").split()  # LSF: host, cores, host, cores ...
    here = platform.node().partition(".")[0]
    for host, cores in zip(words[::2], words[1::2], strict=False):
        if host.partition(".")[0] == here and cores.isdigit():
            limits.append(int(cores))
    quota = _cgroup_cores()
    if quota is not None:
        limits.append(quota)
    return max(1, min(limits))


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """What the processor quotas of this process's cgroup and those above it come to, rounded up; None: no limit."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    found: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            places = [root / path.strip("/")]
        elif "cpu" in controllers.split(","):
            places = [root / controllers / path.strip("/"), root / "cpu" / path.strip("/")]
        else:
            continue
        for place in places:
            for folder in [place, *place.parents]:
                if not folder.is_relative_to(root):
                    break
                found += _quota_of(folder)
    return None if not found else max(1, -int(-min(found) // 1))


def _quota_of(folder: Path) -> list[float]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return [] if quota == "max" or int(quota) <= 0 else [int(quota) / int(period)]
    except (OSError, ValueError):
        return []


THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"),
)
"""How numerical libraries are told how many threads to start; each starts one for each core of the node otherwise."""


def limit_threads(environment: MutableMapping[str, str], workers: int, cores: int) -> None:
    """Gives each of so many workers its share of the cores, in every variable that nobody has set.

    OMP_NUM_THREADS, where it is set, speaks for all: libraries follow it unless they are told otherwise.
    """
    if "OMP_NUM_THREADS" in environment:
        return
    for name in THREAD_VARIABLES:
        environment.setdefault(name, str(max(1, cores // max(1, workers))))
