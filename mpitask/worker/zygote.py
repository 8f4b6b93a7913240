"""The zygote: a small process, started fresh, that imports what workers need and then forks and reaps them.

A rank itself must never fork (it has threads, and an MPI library). The zygote has one thread, no MPI and no user
code, so its children start in a millisecond and share its memory. It reports each child's death to the engine at
once. Every process dies with its parent: the zygote with the rank's engine thread, a worker with the zygote.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mpitask import environment, surroundings
from mpitask.native import check, ffi, lib
from mpitask.worker.runner import ProcessWorker

SEGMENT_FD = 3
COMPAT_VARIABLE = "MPITASK_COMPAT"
"""Environment: a module of `mpitask.compat` whose `install` workers call as well as the root."""
_LOOK_NS = 200_000_000  # a SIGCHLD that comes between a look and a sleep is noticed after this
_SWEEP_S = 0.3  # how long processes that tasks have left behind may take to end by SIGTERM, and then by SIGKILL
_DRAIN_S = 2.0  # how long workers may take to end by themselves


class Zygote:
    """Forks workers on request and reports their ends. One thread."""

    def __init__(self, ring_bytes: int) -> None:
        self._link = lib.mt_worker_open(SEGMENT_FD, 0, ring_bytes)
        if not self._link:
            raise OSError(ffi.errno, "cannot map the memory shared with the engine")
        os.close(SEGMENT_FD)  # mapped; no task and no command may write to it by accident
        self._has_complained = False
        self._workers: dict[int, int] = {}  # process id -> index

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
                except OSError as error:
                    self._cannot_fork(call.n, error)
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

    def _cannot_fork(self, index: int, error: OSError) -> None:
        """The engine tries again later; the other workers go on."""
        if not self._has_complained:
            self._has_complained = True
            print(f"mpitask: a worker process cannot be started now ({error}); it is tried again", file=sys.stderr)
        check(lib.mt_worker_exited(self._link, index, 0, -(error.errno or 1)), "reporting a worker that is not there")

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
                check(lib.mt_worker_exited(self._link, index, pid, status), "reporting a worker's end")

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
        self._sweep()

    def _sweep(self) -> None:
        """Ends what tasks have left behind: it would hold the job's output open, and so keep a launcher waiting."""
        for number, limit_s in ((signal.SIGTERM, _SWEEP_S), (signal.SIGKILL, _SWEEP_S)):
            deadline = time.monotonic() + limit_s
            sent: set[int] = set()
            while time.monotonic() < deadline:
                self._reap()
                left = _descendants(os.getpid())
                if not left:
                    return
                for pid in left:
                    if pid not in sent:
                        sent.add(pid)
                        with contextlib.suppress(OSError):
                            os.kill(pid, number)
                time.sleep(0.005)


def _descendants(pid: int) -> list[int]:
    """Processes below this one, as far as /proc tells."""
    found: list[int] = []
    to_do = [pid]
    while to_do:
        parent = to_do.pop()
        try:
            words = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        found += map(int, words)
        to_do += map(int, words)
    return found


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


def _prepare_worker(zygote_pid: int) -> None:
    if lib.mt_die_with_parent(zygote_pid, signal.SIGKILL) != lib.MT_OK:
        os._exit(1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
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
    check(lib.mt_adopt_orphans(), "becoming the parent of what tasks leave behind")
    environment.scrub_launcher()
    _write_whole_lines()
    compat = importlib.import_module(os.environ[COMPAT_VARIABLE]) if COMPAT_VARIABLE in os.environ else None
    if compat is not None:
        compat.install()
    surroundings.follow()
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
    ProcessWorker(zygote.become(index), options).run()
