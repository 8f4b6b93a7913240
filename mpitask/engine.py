"""The engine as Python sees it: start, wait, end.

One `Engine` is the root of a job: it owns the C driver with its thread. Futures keep their engine alive, so that
their handles stay good after it has ended.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from mpitask import running
from mpitask.config import Config, make_config
from mpitask.driver import Driver, Network, make_driver, stats_of
from mpitask.environment import usable_cores
from mpitask.errors import ConfigurationError, EngineClosedError
from mpitask.futures import Future
from mpitask.native import check, ffi, lib
from mpitask.submission import Submission
from mpitask.worker.runner import Runner

_log = logging.getLogger("mpitask")

_NOTIFIED_AT_A_TIME = 256
_CLOSE_SLACK_S = 0.5  # beyond the engine thread's own limit
_LOOK_NS = 5_000_000  # how often a task that waits for all others looks


class Engine(Submission):
    """A running engine. Any thread may call any method.

    As a context manager: at the normal end all tasks are finished first; after an exception they are dropped.
    """

    def __init__(
        self,
        config: Config,
        *,
        workers: int,
        inline_workers: int = 0,
        virtual_slots: int = 0,
        network: Network | None = None,
        made: Driver | None = None,
    ) -> None:
        self._made = made or make_driver(
            config, workers=workers, inline_workers=inline_workers, virtual_slots=virtual_slots, parent=-1
        )
        super().__init__(config, self._made.pointer)
        if network is not None:
            network.connect(self._driver)
        self._pid = os.getpid()
        self._watched: dict[int, Future[Any]] = {}
        self._notifier: threading.Thread | None = None
        self._inline_threads: list[threading.Thread] = []
        self._inline_workers = inline_workers
        self._workers = workers + inline_workers + virtual_slots
        self._started = False
        self._closed = False
        self.extension: Any = None  # what the layer above keeps with its engine
        self.extension_lock = threading.Lock()
        self._closers: list[Callable[[], None]] = []
        self.is_job = False  # made by `python -m mpitask`, which also ends it
        self.adoptions = 0  # blocks of load() that use a job's engine
        weakref.finalize(self, self._made.destroy).atexit = False  # at exit it is closed first; then the kernel

    def start(self) -> Engine:
        """Starts the engine thread; workers come up by themselves."""
        check(lib.mt_driver_start(self._driver), "starting the engine thread")
        self._started = True
        for i in range(self._inline_workers):
            runner = Runner(self._inline_link(i))
            thread = threading.Thread(
                target=_run_inline, args=(self._runners, runner), name=f"mpitask-inline-{i}", daemon=True
            )
            thread.start()
            self._inline_threads.append(thread)
        running.engines.add(self)
        return self

    def serve_inline(self) -> None:
        """Starts the engine thread and runs tasks in this thread until the rank above says stop."""
        runner = Runner(self._inline_link(0))
        check(lib.mt_driver_start(self._driver), "starting the engine thread")
        self._started = self.is_job = True
        running.set_current(self)
        _run_inline(self._runners, runner)
        running.set_current(None)

    def _inline_link(self, i: int) -> Any:
        link = lib.mt_driver_inline_worker(self._driver, i)
        if not link:
            raise MemoryError("no memory for an inline worker")
        return link

    @property
    def max_workers(self) -> int:
        """Workers that run tasks: those that are up, or at least those that were asked for here."""
        return max(1, self._workers, self.stats()["slots"])

    # -- waiting --

    def wait(self, timeout: float | None = None) -> None:
        """Waits until all tasks have ended, those submitted meanwhile included.

        Raises:
            TimeoutError: after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = -1 if deadline is None else max(0, int((deadline - time.monotonic()) * 1e9))
            runner = self._runners.get(threading.get_ident()) if self._runners else None
            status = lib.mt_driver_wait_all(self._driver, left if runner is None else 0)
            if runner is not None and status == lib.MT_E_TIMEOUT and left != 0:
                status = runner.help(self._driver, 0, _LOOK_NS)
                if status in (lib.MT_OK, lib.MT_E_TIMEOUT):
                    continue
            if status == lib.MT_OK:
                return
            if status == lib.MT_E_TIMEOUT:
                raise TimeoutError(f"{self.unfinished} tasks have not ended within {timeout} s")
            if status != lib.MT_E_INTR:
                self._raise_if_failed()
                raise EngineClosedError("the engine ended before all tasks did")

    def wait_for(self, handle: int, timeout_ns: int) -> int:
        """Waits for a task, as `mt_driver_wait`; within a task, its thread runs others meanwhile. For futures."""
        if self._runners and timeout_ns != 0:
            runner = self._runners.get(threading.get_ident())
            if runner is not None:
                return runner.help(self._driver, handle, timeout_ns)
        return int(lib.mt_driver_wait(self._driver, handle, timeout_ns))

    def rest(self, condition: threading.Condition, timeout: float) -> None:
        """Waits until `condition` is notified, `poke` is called or `timeout` seconds have passed."""
        runner = self._runners.get(threading.get_ident()) if self._runners else None
        if runner is None:
            condition.wait(timeout)
            return
        condition.release()
        try:
            runner.help(self._driver, 0, int(timeout * 1e9))
        finally:
            condition.acquire()

    def poke(self) -> None:
        """After something that a task may wait for with `rest`."""
        for runner in list(self._runners.values()):
            runner.poke()

    def cancel_all(self) -> None:
        """Cancels every task that has not been sent to a worker."""
        lib.mt_driver_cancel_all(self._driver)

    @property
    def unfinished(self) -> int:
        """Tasks that have not ended."""
        stats = lib.mt_driver_stats_now(self._driver)
        return int(stats.submitted - stats.ended)

    def stats(self) -> dict[str, int]:
        """What the engine has counted.

        submitted and ended tasks; ready: could run, and wait for a worker; slots: workers that are up;
        recalled: tasks taken back from a busy worker;
        objects: functions, shared and large values that the root holds; objects_sent: how often one was sent to a
        worker or rank right below; objects_mapped: of which the worker maps it;
        neighbours: ranks right below; bells: those of them on this node, which are woken directly; of the engine's
        thread: steps, sleeps, frames_in, frames_out, cpu_ns.
        """
        return stats_of(self._driver)

    # -- callbacks --

    def _watch(self, handle: int, future: Future[Any]) -> bool:
        """Has the notifier tell this future when it is final. False: it is."""
        with self._lock:
            if self._closed:
                return False
            self._watched[handle] = future
            if not lib.mt_driver_notify(self._driver, handle):
                del self._watched[handle]
                return False
            if self._notifier is None:
                self._notifier = threading.Thread(target=_notify, args=(weakref.ref(self), self._driver), daemon=True)
                self._notifier.name = "mpitask-notifier"
                self._notifier.start()
        return True

    def _take_watched(self, handles: Sequence[int] | None) -> list[Future[Any]]:
        with self._lock:
            if handles is None:
                futures = list(self._watched.values())
                self._watched.clear()
                return futures
            return [future for handle in handles if (future := self._watched.pop(handle, None)) is not None]

    # -- ending --

    def at_close(self, fn: Callable[[], None]) -> None:
        """Has `fn` called when the engine is closed: after the last task, before the workers end."""
        self._closers.append(fn)

    def close(self, *, drop: bool = False) -> bool:
        """Ends the engine: after all tasks, or, with `drop`, at once. Whether every process below has ended.

        Later calls do nothing. Takes at most 5 s once the tasks are done with; more where processes share cores.
        """
        if self._pid != os.getpid():
            return True  # a forked child has no engine
        if not drop and not self._closed:
            self.wait()
        with self._lock:
            first, self._closed = not self._closed, True
        for fn in self._closers if first else ():
            try:
                fn()
            except Exception:  # noqa: BLE001 - whatever fails there, the processes must end
                _log.exception("%r failed while the engine was closed", fn)
        if first and self._started:
            lib.mt_driver_stop(self._driver, lib.MT_STOP_NOW if drop else lib.MT_STOP_DRAIN)
        deadline = time.monotonic() + lib.mt_driver_stop_limit(self._driver) / 1e9 + _CLOSE_SLACK_S
        while self._started and time.monotonic() < deadline:
            left = max(0, int((deadline - time.monotonic()) * 1e9))
            if lib.mt_driver_join(self._driver, left) == lib.MT_OK:
                break
        for thread in self._inline_threads:
            thread.join(timeout=1)
        if self._notifier is not None and self._notifier is not threading.current_thread():
            self._notifier.join(timeout=1)
        for future in self._take_watched(None):
            future._became_final()
        running.ended(self)
        return bool(lib.mt_driver_is_clean(self._driver))

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mode = self.config.exit_mode
        if self.is_job:
            self.adoptions -= 1
            if kind is None and mode == "wait":
                self.wait()
            return
        if mode == "skip":
            return
        try:
            self.close(drop=kind is not None or mode == "cleanup")
        except BaseException:
            self.close(drop=True)
            raise


def _run_inline(runners: dict[int, Runner], runner: Runner) -> None:
    runners[threading.get_ident()] = runner
    try:
        runner.run()
    finally:
        del runners[threading.get_ident()]
        lib.mt_worker_close(runner.worker)


def _notify(ref: weakref.ref[Engine], driver: Any) -> None:
    """The notifier thread: completes futures that somebody watches."""
    handles = ffi.new("uint64_t[]", _NOTIFIED_AT_A_TIME)
    while True:
        got = lib.mt_driver_next_notified(driver, handles, _NOTIFIED_AT_A_TIME, -1)
        if got == lib.MT_E_CLOSED:
            return
        engine = ref()
        if engine is None:
            return
        if got > 0:
            for future in engine._take_watched(ffi.unpack(handles, got)):
                future._became_final()
            if engine._runners:
                engine.poke()
        future = engine = None  # type: ignore[assignment]


def start_here(config: Config) -> Engine:
    """Starts an engine on this machine alone, with the workers that the configuration asks for."""
    if config.inline:
        return Engine(config, workers=0, inline_workers=1).start()
    return Engine(config, workers=usable_cores() if config.workers == "auto" else config.workers).start()


def load(config: Config | None = None, **options: Any) -> Engine:
    """Starts an engine on this machine and makes it the current one; or, when one is running, adopts it.

    Under `python -m mpitask` the engine of the job is running already: its options come from the command line.

    Args:
        config: the options; the default is `Config()`.
        **options: options that replace those of `config`.

    Raises:
        ConfigurationError: an option is wrong.
    """
    asked_for_options = config is not None or bool(options)
    config = make_config(config, options)
    engine = running.find()
    if engine is not None:
        if not engine.is_job:
            raise ConfigurationError(
                "an engine is loaded already: use it through mpitask.current(), or close it first with "
                "mpitask.current().close()"
            )
        if asked_for_options:
            _log.warning("the options of load() have no effect: this job's engine runs already (see its command line)")
        engine.adoptions += 1
        return engine
    engine = start_here(config)
    running.set_current(engine)
    return engine
