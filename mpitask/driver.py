"""Making the C driver of a rank: the same for the root's engine and for agents."""

from __future__ import annotations

import json
import multiprocessing.process
import os
import socket
import sys
import weakref
from typing import Any, Protocol

from mpitask.config import Config
from mpitask.environment import limit_threads, usable_cores
from mpitask.errors import ConfigurationError
from mpitask.native import ffi, lib
from mpitask.worker import AUTHKEY_VARIABLE

INBOX_CAPACITY = 1 << 14

_ZYGOTE = (
    "import sys, json; a = json.loads(sys.argv[1]); sys.path[:] = a[0]; "
    "from mpitask.worker.zygote import main; main(*a[1:])"
)


def stop_limit_s(crowding: float) -> float:
    """From the order to stop until an engine ends whatever happens.

    What is being ended may still be starting, and an interpreter needs seconds to start where it has a small share of
    a core: without the allowance, a short script on many ranks of a small machine ended in disorder.

    Args:
        crowding: processes of this job for each core, on its fullest node.
    """
    return 4.0 + max(0.0, crowding - 1.0)


def zygote_environment(workers: int, cores: int) -> dict[str, str]:
    """The environment that a rank's workers start with: this one as it is now, for the script may change it later."""
    variables = dict(os.environ)
    limit_threads(variables, workers, cores)
    variables[AUTHKEY_VARIABLE] = bytes(multiprocessing.process.current_process().authkey).hex()
    return variables


class Network(Protocol):
    """The other ranks of the job."""

    def connect(self, driver: Any) -> None:
        """Shakes hands with parent and children and gives the driver its transport."""


def zygote_command(ring_bytes: int, options: dict[str, Any]) -> list[str]:
    """The command line of this rank's zygote: this interpreter with this module search path."""
    path = [os.path.realpath(entry) if entry == "" else entry for entry in sys.path]
    return [sys.executable, "-c", _ZYGOTE, json.dumps([path, os.getpid(), ring_bytes, options])]


class Driver:
    """Owns an `mt_driver` that has not been started, and what its options point to.

    It is freed when nobody refers to this object any more: whoever may be within a call of the core, a thread for
    instance, keeps a reference.
    """

    def __init__(self, pointer: Any, borrowed: list[Any]) -> None:
        self.pointer = pointer
        self._end = weakref.finalize(self, _destroy, pointer, borrowed)
        self._end.atexit = False  # then the kernel does it

    def stop(self) -> None:
        """Has it end at once, if it runs; does not wait."""
        lib.mt_driver_stop(self.pointer, lib.MT_STOP_NOW)

    def destroy(self) -> None:
        """Frees it now. No handle may be in use any more."""
        self._end()
        self.pointer = ffi.NULL


def _destroy(pointer: Any, _borrowed: list[Any]) -> None:
    lib.mt_driver_destroy(pointer)


_STATS = (
    *("submitted", "ended", "ready", "slots", "steps", "sleeps", "frames_in", "frames_out"),
    *("recalled", "objects", "objects_sent", "objects_mapped", "neighbours", "bells", "guards", "cpu_ns", "failed"),
)


def stats_of(pointer: Any) -> dict[str, int]:
    """What an `mt_driver` has counted, by the names in driver.h."""
    stats = lib.mt_driver_stats_now(pointer)
    return {name: int(getattr(stats, name)) for name in _STATS}


def _first_id(rank: int, n: int) -> int:
    """The `n`-th number for an object of a rank, counted from 0."""
    most = (1 << lib.MT_ID_RANK_BITS) - 1
    if rank >= most:
        raise ConfigurationError(f"rank {rank}: a job can have {most:,} ranks; start fewer, with more workers each")
    return (rank + 1 << int(lib.MT_ID_COUNT_BITS)) + n


def make_driver(
    config: Config,
    *,
    workers: int,
    inline_workers: int,
    parent: int,
    virtual_slots: int = 0,
    rank: int = 0,
    above: Any = None,
    cores: int | None = None,
) -> Driver:
    """A driver, not started.

    Args:
        config: the engine's options.
        workers: worker processes.
        inline_workers: links for threads of this process.
        parent: the rank above; -1 for the root.
        virtual_slots: slots whose tasks only wait, for measuring.
        rank: this process's, or that of the worker which it is.
        cores: those that its workers share; None: all of this process.
        above: the worker (an `mt_worker`) whose tasks submit here, if this is no rank's driver.

    Raises:
        OSError: the shared memory cannot be made.
    """
    for_workers = {"rank": rank, "retries": config.retries, "loss_retries": config.loss_retries}
    words = [ffi.new("char[]", os.fsencode(word)) for word in zygote_command(config.ring_bytes, for_workers)]
    argv = ffi.new("char *[]", [*words, ffi.NULL])
    environment = zygote_environment(workers, cores or usable_cores())
    variables = [ffi.new("char[]", os.fsencode(f"{key}={value}")) for key, value in environment.items()]
    envp = ffi.new("char *[]", [*variables, ffi.NULL])
    host = ffi.new("char[]", socket.gethostname().encode())
    options = ffi.new(
        "mt_driver_options *",
        {
            "workers": workers,
            "inline_workers": inline_workers,
            "virtual_slots": virtual_slots,
            "ring_bytes": config.ring_bytes,
            "inbox_capacity": INBOX_CAPACITY,
            "spin": config.progress == "spin",
            "losses": config.loss_retries,
            "parent": parent,
            "above": ffi.NULL if above is None else above,
            "first_id": _first_id(rank, 0),
            "stop_limit_ns": int(stop_limit_s((workers + 2) / usable_cores()) * 1e9),
            "host": host,
            "zygote_argv": argv,
            "zygote_envp": envp,
        },
    )
    pointer = lib.mt_driver_new(options)
    if not pointer:
        raise OSError(ffi.errno, f"the memory shared with {workers} workers cannot be made: {os.strerror(ffi.errno)}")
    return Driver(pointer, [*words, *variables, argv, envp, host])
