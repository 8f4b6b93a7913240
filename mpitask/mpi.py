"""The border to MPI: the only module that imports mpi4py.

It starts MPI, finds out whether the job is a real one, shakes hands along the tree, and gives the C core the
addresses of the few calls that it needs. From then on no Python code calls MPI for the engine, until `leave`.

The messages of the hand-shake are small pickles over the tree's edges: facts go up, the verdict and the settings come
down. So a mixed job (another Python, another mpitask, another machine word) is refused with one message, by the root,
before any task runs.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpitask._version import __version__
from mpitask.errors import ConfigurationError
from mpitask.native import check, ffi, lib

TAG_HANDSHAKE = 1
TAG_FRAMES = 2
DEFAULT_FANOUT = 64
_CALLS = {
    "isend": "MPI_Isend",
    "irecv": "MPI_Irecv",
    "test": "MPI_Test",
    "cancel": "MPI_Cancel",
    "get_count": "MPI_Get_count",
}
_MPICH_FAMILY = ("MPICH", "Intel MPI", "MVAPICH", "Cray MPICH")
_REMEDY = (
    "install one with `pip install 'mpitask[mpich]'`, or load your site's MPI module and make sure that mpi4py finds it"
)


def launched_size() -> int:
    """How many processes an MPI launcher says it has started; 0: no launcher, 1 or more otherwise."""
    names = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "MPI_LOCALNRANKS", "PALS_SIZE")
    sizes = [int(value) for name in names if (value := os.environ.get(name, "")).isdigit()]
    if not sizes and ("PMIX_RANK" in os.environ or "PMI_RANK" in os.environ):
        return 1
    if sizes == [1] and "SLURM_STEP_NUM_TASKS" in os.environ:
        return 0 if "PMI_RANK" not in os.environ else 1
    return max(sizes, default=0)


def launched_rank() -> int:
    """The launcher's number of this process; 0 when there is none. For messages: the real rank is MPI's."""
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PALS_RANKID", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def find_mpiexec() -> str:
    """The launcher beside this interpreter (a wheel's), or the one on PATH.

    Raises:
        ConfigurationError: there is none.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("mpiexec")
    if found is None:
        raise ConfigurationError(f"there is no mpiexec beside {sys.executable} or on PATH: {_REMEDY}")
    return found


def tree_neighbours(rank: int, size: int, fanout: int) -> tuple[int, list[int]]:
    """Parent (-1 for rank 0) and children of a rank: rank r's children are fanout*r + 1 ... fanout*r + fanout."""
    first = rank * fanout + 1
    return (-1 if rank == 0 else (rank - 1) // fanout), list(range(first, min(first + fanout, size)))


@dataclass(frozen=True)
class Facts:
    """What the ends of a tree edge tell each other."""

    python: str
    mpitask: str
    machine: str
    host: str
    boot_id: str
    pid: int
    bell_fd: int


def _boot_id() -> str:
    """Names the node: its running kernel and network name space (containers may share a kernel)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}/{platform.node()}"


def _facts(bell_fd: int) -> dict[str, Any]:
    # A plain dictionary: another version of this class must be readable too.
    return {
        "python": platform.python_version(),
        "mpitask": __version__,
        "machine": f"{platform.machine()} {sys.byteorder}-endian",
        "host": platform.node(),
        "boot_id": _boot_id(),
        "pid": os.getpid(),
        "bell_fd": bell_fd,
    }


def _differences(mine: dict[str, Any], theirs: dict[str, Any], rank: int) -> list[str]:
    names = {"python": "Python", "mpitask": "mpitask", "machine": "machine"}
    where = f"rank {rank} on {theirs.get('host')}"
    return [
        f"{where} has {text} {theirs.get(key)}, its parent on {mine['host']} has {mine[key]}"
        for key, text in names.items()
        if theirs.get(key) != mine[key]
    ]


class Job:
    """This rank's place in an MPI job. Main thread only.

    Raises (by `join`):
        ConfigurationError: MPI cannot be loaded, or the launcher belongs to another MPI.
    """

    def __init__(self, mpi: Any, comm: Any, fanout: int) -> None:
        self._mpi = mpi
        self._comm = comm
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self.parent, self.children = tree_neighbours(self.rank, self.size, fanout)

    @classmethod
    def join(cls, fanout: int = DEFAULT_FANOUT) -> Job:
        """Starts MPI and makes sure that this is a real job."""
        expected = launched_size()
        mpi = _load_mpi()
        vendor, version = mpi.get_vendor()
        name = f"{vendor} {'.'.join(map(str, version))}"
        _check_launcher(vendor, name)
        mpi.Init_thread(mpi.THREAD_MULTIPLE)
        if mpi.Query_thread() != mpi.THREAD_MULTIPLE:
            raise ConfigurationError(
                f"{name} does not support MPI_THREAD_MULTIPLE, which mpitask needs: use another build of it"
            )
        world = mpi.COMM_WORLD
        if expected > 1 and world.Get_size() == 1:
            raise ConfigurationError(
                f"the launcher has started {expected} processes, but each of them is alone: it does not belong to "
                f"the MPI that mpi4py uses ({name}). Use that MPI's own mpiexec (here: {_known_mpiexec()}), "
                "or with Slurm the right `srun --mpi=...` (see `srun --mpi=list`)"
            )
        return cls(mpi, world.Dup(), fanout)

    def local_agents(self) -> tuple[int, int]:
        """Ranks of this node that run tasks, and the cores they may use together; rank 0 counts as none. Collective."""
        local = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        runs_tasks = self.rank != 0 or self.size == 1
        cores = os.sched_getaffinity(0) if runs_tasks else set()
        everybody = local.allgather(cores)
        local.Free()
        agents = sum(1 for theirs in everybody if theirs)
        return agents, len(set().union(*everybody))

    def connect(self, driver: Any) -> None:
        """Shakes hands along the tree and gives the driver its transport and its neighbours' bells.

        Raises:
            ConfigurationError: ranks differ in a way that matters; every rank raises, the root with the reasons.
        """
        mine = _facts(lib.mt_driver_bell_fd(driver))
        problems: list[str] = []
        facts: dict[int, dict[str, Any]] = {}
        for child in self.children:
            facts[child], theirs = self._comm.recv(source=child, tag=TAG_HANDSHAKE)
            problems += [*_differences(mine, facts[child], child), *theirs][:8]
        if self.parent >= 0:
            self._comm.send((mine, problems), dest=self.parent, tag=TAG_HANDSHAKE)
            facts[self.parent], problems = self._comm.recv(source=self.parent, tag=TAG_HANDSHAKE)
        for child in self.children:
            self._comm.send((mine, problems), dest=child, tag=TAG_HANDSHAKE)
        if problems:
            raise ConfigurationError(
                "the ranks of this job do not fit together: "
                + "; ".join(problems)
                + ". Give all nodes the same environment"
            )
        transport = lib.mt_transport_mpi_new(self._table())
        if not transport:
            raise ConfigurationError("MPI refuses to receive: see its own messages above")
        children = ffi.new("uint32_t[]", self.children)
        check(lib.mt_driver_connect(driver, transport, children, len(self.children)), "connecting the ranks")
        for rank, theirs in facts.items():
            if theirs["boot_id"] == mine["boot_id"]:
                path = f"/proc/{theirs['pid']}/fd/{theirs['bell_fd']}"
                lib.mt_driver_share_bell(driver, rank, path.encode())  # where it fails, that neighbour is polled for
        self._comm.Barrier()  # nobody may end while a neighbour still opens its bell; the last collective call

    def _table(self) -> Any:
        mpi = self._mpi
        library = ctypes.CDLL(mpi.__file__)  # a look-up in it searches the MPI library that it is linked to

        def handle(thing: Any) -> int:
            return int(mpi._handleof(thing)) & ((1 << 64) - 1)

        return ffi.new(
            "mt_mpi_table *",
            {
                "handle_size": mpi._sizeof(mpi.COMM_WORLD),
                "source_at": _source_offset(mpi),
                "any_source": mpi.ANY_SOURCE,
                "tag": TAG_FRAMES,
                "comm": handle(self._comm),
                "byte": handle(mpi.BYTE),
                **{
                    key: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for key, name in _CALLS.items()
                },
            },
        )


def leave() -> None:
    """Ends MPI in order, if it was started. Every rank must come here; after a loss use os._exit instead."""
    started = sys.modules.get("mpi4py.MPI")
    if started is not None and started.Is_initialized() and not started.Is_finalized():
        started.Finalize()


def _load_mpi() -> Any:
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"no MPI library can be loaded ({reason}): {_REMEDY}") from error
    return MPI


def _known_mpiexec() -> str:
    try:
        return find_mpiexec()
    except ConfigurationError:
        return "none found"


def _check_launcher(vendor: str, name: str) -> None:
    """Finds a launcher of the other family before MPI itself fails over it."""
    open_mpi_launcher = "OMPI_COMM_WORLD_SIZE" in os.environ
    hydra = "PMI_FD" in os.environ or ("PMI_SIZE" in os.environ and "SLURM_STEP_NUM_TASKS" not in os.environ)
    if open_mpi_launcher and vendor in _MPICH_FAMILY:
        launcher = "Open MPI's"
    elif hydra and not open_mpi_launcher and vendor == "Open MPI":
        launcher = "MPICH's"
    else:
        return
    raise ConfigurationError(
        f"this job was started with {launcher} mpiexec, but mpi4py uses {name}: every process would be alone. "
        f"Use that MPI's own mpiexec (here: {_known_mpiexec()})"
    )


def _source_offset(mpi: Any) -> int:
    """Where MPI_SOURCE lies in this library's MPI_Status: found by writing one and looking."""
    status = mpi.Status()
    status.Set_source(0x01234567)
    raw = ctypes.string_at(mpi._addressof(status), mpi._sizeof(mpi.Status))
    return raw.index((0x01234567).to_bytes(4, sys.byteorder))
