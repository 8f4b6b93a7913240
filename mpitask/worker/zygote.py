"""The zygote: a small process, started fresh, that imports what workers need and then forks and reaps them.

A rank itself must never fork (it has threads, and an MPI library). The zygote has one thread, no MPI and no user
code, so its children start in a millisecond and share its memory. It reports each child's death to the engine at
once. Every process dies with its parent: the zygote with the rank's engine thread, a worker with the zygote.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import multiprocessing.process
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mpitask import environment, surroundings
from mpitask.native import check, ffi, lib
from mpitask.worker import AUTHKEY_VARIABLE, tidy
from mpitask.worker.runner import ProcessWorker

SEGMENT_FD = 3
COMPAT_VARIABLE = "MPITASK_COMPAT"
"""Environment: a module of `mpitask.compat` whose `install` workers call as well as the root."""
_LOOK_NS = 200_000_000  # a SIGCHLD that comes between a look and a sleep is noticed after this
_TERM_PAUSE_S = 0.5  # before a worker follows a SIGTERM that its rank has not sent
_DRAIN_S = 2.0  # how long workers may take to end by themselves
_SWEEP_S = 0.3  # how long what tasks have left behind may take to end by SIGTERM, and then by SIGKILL


class Zygote:
    """Forks workers on request and reports their ends. One thread."""

    def __init__(self, ring_bytes: int) -> None:
        self._link = lib.mt_worker_open(SEGMENT_FD, 0, ring_bytes)
        if not self._link:
            raise OSError(ffi.errno, "cannot map the memory shared with the engine")
        os.close(SEGMENT_FD)  # the mapping stays; what workers start must not find it
        self._workers: dict[int, int] = {}  # process id -> index
        self._kills_by_kernel = _kills_for_memory()

    def serve(self) -> int | None:
        """Serves until told to stop; None. In a forked child it returns the child's index at once."""
        check(lib.mt_worker_hello(self._link, 1), "greeting the engine")
        call = ffi.new("mt_call *")
        while True:
            kind = lib.mt_worker_next(self._link, _LOOK_NS, call)
            self._reap()
            if kind == lib.MT_KIND_SPAWN:
                try:
                    pid = os.fork()
                except OSError as error:  # too many processes, or no memory: that passes
                    self._tell_exited(call.n, 0, -(error.errno or errno.EAGAIN), lib.MT_LOST_UNMADE)
                    continue
                if pid == 0:
                    return int(call.n)
                self._workers[pid] = call.n
            elif kind == lib.MT_KIND_KILL:
                self._kill(call.n)
            elif kind == lib.MT_KIND_STOP:
                self._stop(now=call.n == lib.MT_STOP_NOW)
                return None
            elif kind not in (lib.MT_E_TIMEOUT, lib.MT_E_INTR):
                check(kind, "waiting for orders")

    def become(self, index: int) -> Any:
        """In a forked child: its own link."""
        check(lib.mt_worker_become(self._link, 1 + index), "opening the worker's link")
        return self._link

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            index = self._workers.pop(pid, None)
            if index is not None:
                self._tell_exited(index, pid, status, self._cause(status))

    def _tell_exited(self, index: int, pid: int, status: int, what: int) -> None:
        check(lib.mt_worker_exited(self._link, index, pid, status, what), "reporting a worker's end")

    def _cause(self, status: int) -> int:
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            return int(lib.MT_LOST_WORKER)
        before, self._kills_by_kernel = self._kills_by_kernel, _kills_for_memory()
        return int(lib.MT_LOST_MEMORY if self._kills_by_kernel > before else lib.MT_LOST_WORKER)

    def _kill(self, index: int | None = None) -> None:
        for pid, of in self._workers.items():
            if index in (None, of):
                os.kill(pid, signal.SIGKILL)

    def _stop(self, *, now: bool) -> None:
        deadline = time.monotonic() + (0 if now else _DRAIN_S)
        while self._workers:
            if time.monotonic() >= deadline:
                self._kill()
            self._reap()
            if self._workers:
                time.sleep(0.002)
        _sweep()


def _kills_for_memory() -> int:
    """How many processes the kernel has killed for lack of memory, on this machine."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _sweep() -> None:
    """Ends what tasks have started and left running: else whoever waits for its output would wait for ever.

    It has become the zygote's children, however it has detached itself; what those have started, when they end.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _SWEEP_S
        told: set[int] = set()
        while (left := _children()) and time.monotonic() < deadline:
            for pid in set(left) - told:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            told.update(left)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0] != 0:
                    pass
            time.sleep(0.002)


def _write_whole_lines() -> None:
    """Lines of workers reach their file in one piece each, also where the streams have no buffer (PYTHONUNBUFFERED)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            continue
        if isinstance(stream.buffer, io.RawIOBase):
            text = io.TextIOWrapper(io.BufferedWriter(stream.buffer), stream.encoding, stream.errors)
            setattr(sys, name, text)
            setattr(sys, f"__{name}__", text)
            _kept.append(stream)  # it would close the descriptor
        getattr(sys, name).reconfigure(line_buffering=True)


_kept: list[Any] = []


def _on_term(*_: object) -> None:
    """A batch system that ends a job tells every process of it, in no order: the script shall be the first to end."""
    time.sleep(_TERM_PAUSE_S)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _prepare_worker(zygote_pid: int) -> None:
    if lib.mt_die_with_parent(zygote_pid, signal.SIGKILL) != lib.MT_OK:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _on_term)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.unfreeze()
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def main(parent_pid: int, ring_bytes: int, options: dict[str, Any]) -> None:
    """The zygote's, and after a fork the worker's, whole life. `options`: for engines of tasks that submit others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only to end a sleep
    if lib.mt_die_with_parent(parent_pid, signal.SIGKILL) != lib.MT_OK:
        os._exit(1)
    check(lib.mt_adopt_orphans(), "looking after what tasks leave behind")
    environment.scrub_launcher()
    if key := os.environ.pop(AUTHKEY_VARIABLE, ""):
        multiprocessing.process.current_process().authkey = bytes.fromhex(key)
    _write_whole_lines()
    compat = importlib.import_module(os.environ[COMPAT_VARIABLE]) if COMPAT_VARIABLE in os.environ else None
    if compat is not None:
        compat.install()
    zygote = Zygote(ring_bytes)
    pid = os.getpid()
    gc.collect()
    gc.freeze()
    index = zygote.serve()
    if index is None:
        os._exit(0)
    _prepare_worker(pid)
    if compat is not None:
        compat.in_worker(index)
    surroundings.follow()
    tidy.watch()
    ProcessWorker(zygote.become(index), options).run()
