"""The border to MPI: the only module that imports mpi4py.

It starts MPI, finds out whether the job is a real one and which ranks share a node, shakes hands along the tree, and
gives the C core the addresses of the few calls that it needs. From then on no Python code calls MPI for the engine,
until `leave`.

The messages of the hand-shake are small pickles over the tree's edges: facts go up, the verdict and the settings come
down. So a mixed job (another Python, another mpitask, another machine word) is refused with one message, by the root,
before any task runs.

A rank that waits here sleeps between its looks. The libraries' own waiting keeps a core busy, which those who are still
starting need wherever ranks share cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import multiprocessing.process
import os
import platform
import shutil
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mpitask._version import __version__
from mpitask.driver import stop_limit_s
from mpitask.early import at_the_mercy_of_signals
from mpitask.environment import usable_cores
from mpitask.errors import ConfigurationError
from mpitask.native import check, ffi, lib
from mpitask.tree import find_place

_log = logging.getLogger("mpitask")

TAG_HANDSHAKE = 1
TAG_FRAMES = 2
DEFAULT_FANOUT = 64
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 50e-6, 5e-3
_MOST_PROBLEMS = 8
_HEAVY_YIELD = "MPIR_CVAR_ENABLE_HEAVY_YIELD"
_CALLS = {
    "isend": "MPI_Isend",
    "irecv": "MPI_Irecv",
    "test": "MPI_Test",
    "testsome": "MPI_Testsome",
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


def node_name() -> str:
    """Names the node of this process: two ranks with the same name are on one node, for everything that mpitask does.

    That is the same running kernel, the same process and network name spaces and the same host name: then a rank can
    open another's memory as /proc/PID/fd/N, and the two are not containers that only share a kernel. MPI's own answer
    (COMM_TYPE_SHARED) is not asked: some libraries go by host names, some by the launcher's word, and settings of
    theirs change it. MPITASK_NODE is added to the name and so divides a node, by sockets for instance.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    spaces = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("pid", "net")]
    return "/".join([boot, *spaces, platform.node(), os.environ.get("MPITASK_NODE", "")])


@contextlib.contextmanager
def _sleeping_waits() -> Iterator[None]:
    """Has MPICH sleep while it waits inside MPI_Init and MPI_Finalize, where this node has fewer cores than ranks.

    It looks all the time otherwise, which takes the core from the rank that it waits for: 24 ranks on two busy cores
    started in 60 s, and in 25 s with this. mpitask waits nowhere else inside MPI.
    """
    ranks = os.environ.get("MPI_LOCALNRANKS", "")  # set by Hydra, the launcher of this family
    sets = ranks.isdigit() and int(ranks) > usable_cores() and _HEAVY_YIELD not in os.environ
    if sets:
        os.environ[_HEAVY_YIELD] = "1"
    try:
        yield
    finally:
        if sets:
            del os.environ[_HEAVY_YIELD]  # read once, by MPI_Init; the workers' own programs must not inherit it


def _until(look: Callable[[], Any]) -> Any:
    """Looks, with growing pauses, until there is something true; gives that."""
    pause_s = _FIRST_PAUSE_S
    while not (found := look()):
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return found


def _receive(comm: Any, source: int) -> Any:
    """The next message of the start-up from a rank."""

    def look() -> Any:  # libraries move messages on in one probe and show them in the next
        return comm.improbe(source, TAG_HANDSHAKE) or comm.improbe(source, TAG_HANDSHAKE)

    return _until(look).recv()


def _find_leaders(comm: Any) -> array[int]:
    """For each rank the first rank of its node. Collective; 12 bytes for each rank, 4 of which stay with the caller.

    The names travel as hashes of 8 bytes. Should two nodes have the same one, they get one leader, which costs time and
    nothing else: bells are shared by the names themselves.
    """
    size: int = comm.Get_size()
    number = int.from_bytes(hashlib.blake2b(node_name().encode(), digest_size=8).digest(), sys.byteorder)
    numbers = array("Q", [0]) * size
    _until(comm.Iallgather(array("Q", [number]), numbers).Test)
    leaders = array("I", [0]) * size
    _until(comm.Iallgather(array("I", [numbers.index(number)]), leaders).Test)
    return leaders


def _facts(bell_fd: int) -> dict[str, Any]:
    # A plain dictionary: another version of this class must be readable too.
    return {
        "python": platform.python_version(),
        "mpitask": __version__,
        "machine": f"{platform.machine()} {sys.byteorder}-endian",
        "host": platform.node(),
        "node": node_name(),
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


def _share_bell(driver: Any, rank: int, facts: dict[str, Any]) -> bool:
    """Whether a neighbour on this node can be rung; where it cannot (no access to its memory), both sides poll.

    The neighbour is there, for it cannot end before this rank does its part: a rank's engine ends after its parent's
    STOP and its children's BYE.
    """
    path = f"/proc/{facts['pid']}/fd/{facts['bell_fd']}"
    return bool(lib.mt_driver_share_bell(driver, rank, path.encode()) == lib.MT_OK)


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
        self._place = find_place(self.rank, _find_leaders(comm), fanout)
        self.parent = self._place.parent
        self.crowding = 1.0
        """Processes of the job for each core of this node. Set it before `connect`, which takes the worst of all."""

    @classmethod
    def join(cls, fanout: int = DEFAULT_FANOUT) -> Job:
        """Starts MPI and makes sure that this is a real job."""
        expected = launched_size()
        mpi = _load_mpi()
        vendor, version = mpi.get_vendor()
        name = f"{vendor} {'.'.join(map(str, version))}"
        _check_launcher(vendor, name)
        with _sleeping_waits(), at_the_mercy_of_signals():
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
        comm, request = world.Idup()
        _until(request.Test)
        comm.Set_errhandler(mpi.ERRORS_RETURN)  # what fails costs a rank, not the job
        key = bytearray(multiprocessing.process.current_process().authkey)  # the root's is everybody's
        _until(comm.Ibcast(key, 0).Test)
        multiprocessing.process.current_process().authkey = bytes(key)
        return cls(mpi, comm, fanout)

    def local_agents(self) -> tuple[int, int]:
        """Ranks of this node that run tasks, and the cores they may use together; rank 0 counts as none. Collective."""
        runs_tasks = self.rank != 0 or self.size == 1
        cores = os.sched_getaffinity(0) if runs_tasks else set()
        members = self._place.local_children
        if not self._place.is_leader:
            self._comm.send(cores, dest=self.parent, tag=TAG_HANDSHAKE)
            agents, n_cores = _receive(self._comm, self.parent)
            return agents, n_cores
        everybody = [cores, *(_receive(self._comm, member) for member in members)]
        answer = sum(1 for theirs in everybody if theirs), len(set().union(*everybody))
        for member in members:
            self._comm.send(answer, dest=member, tag=TAG_HANDSHAKE)
        return answer

    def connect(self, driver: Any) -> None:
        """Shakes hands along the tree and gives the driver its transport and its neighbours' bells.

        Raises:
            ConfigurationError: ranks differ in a way that matters; every rank raises, the root with the reasons.
        """
        mine = _facts(lib.mt_driver_bell_fd(driver))
        problems: list[str] = []
        facts: dict[int, dict[str, Any]] = {}
        children = self._place.children
        for child in children:
            facts[child], theirs, crowding = _receive(self._comm, child)
            self.crowding = max(self.crowding, crowding)
            problems = [*problems, *_differences(mine, facts[child], child), *theirs][:_MOST_PROBLEMS]
        if self.parent >= 0:
            self._comm.send((mine, problems, self.crowding), dest=self.parent, tag=TAG_HANDSHAKE)
            facts[self.parent], problems, self.crowding = _receive(self._comm, self.parent)
        for child in children:
            self._comm.send((mine, problems, self.crowding), dest=child, tag=TAG_HANDSHAKE)
        if problems:
            raise ConfigurationError(
                "the ranks of this job do not fit together: "
                + "; ".join(problems)
                + ". Give all nodes the same environment"
            )
        lib.mt_driver_set_stop_limit(driver, int(stop_limit_s(self.crowding) * 1e9))
        if not facts:
            return  # alone
        neighbours = ffi.new("uint32_t[]", sorted(facts))
        transport = lib.mt_transport_mpi_new(self._table(), neighbours, len(facts))
        if not transport:
            raise ConfigurationError("MPI refuses to receive: see its own messages above")
        ranks = ffi.new("uint32_t[]", children)
        check(lib.mt_driver_connect(driver, transport, ranks, len(children)), "connecting the ranks")
        near = [rank for rank, theirs in facts.items() if theirs["node"] == mine["node"]]
        bells = [rank for rank in near if _share_bell(driver, rank, facts[rank])]
        _log.debug(
            "rank %d of %d on %s: parent %d, children on this node %s, on others %s, bells of %s",
            *(self.rank, self.size, mine["host"], self.parent),
            *(list(self._place.local_children), list(self._place.remote_children), sorted(bells)),
        )

    def _table(self) -> Any:
        mpi = self._mpi
        library = ctypes.CDLL(mpi.__file__)  # a look-up in it searches the MPI library that it is linked to

        def handle(thing: Any) -> int:
            return int(mpi._handleof(thing)) & ((1 << 64) - 1)

        return ffi.new(
            "mt_mpi_table *",
            {
                "handle_size": mpi._sizeof(mpi.COMM_WORLD),
                "status_size": mpi._sizeof(mpi.Status),
                # Open MPI moves messages on only after it has looked
                "looks": 2 if mpi.get_vendor()[0] == "Open MPI" else 1,
                "tag": TAG_FRAMES,
                "comm": handle(self._comm),
                "byte": handle(mpi.BYTE),
                "request_null": handle(mpi.REQUEST_NULL),
                "error_in_status": mpi.ERR_IN_STATUS,
                "error_at": _where_the_error_is(mpi),
                **{
                    key: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for key, name in _CALLS.items()
                },
            },
        )


def _where_the_error_is(mpi: Any) -> int:
    """The place of MPI_ERROR in an MPI_Status."""
    marker = 0x5EED
    status = mpi.Status()
    status.Set_error(marker)
    data = ctypes.string_at(mpi._addressof(status), mpi._sizeof(status))
    return data.index(marker.to_bytes(4, sys.byteorder))


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
