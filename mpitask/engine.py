"""The engine as Python sees it: start, wait, end.

One `Engine` is the root of a job: it owns the C driver with its thread. Futures keep their engine alive, so that
their handles stay good after it has ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol

from mpitask import allocation, mpi, running, surroundings
from mpitask.config import Config, asked_for, flag_of, is_late, make_config
from mpitask.driver import Driver, Network, make_driver, stats_of
from mpitask.early import launched_rank
from mpitask.environment import usable_cores
from mpitask.errors import ConfigurationError, EngineClosedError
from mpitask.futures import Future, name_of
from mpitask.native import check, ffi, lib
from mpitask.submission import Submission
from mpitask.unseen import describe
from mpitask.worker.runner import Runner

_log = logging.getLogger("mpitask")

_NOTIFIED_AT_A_TIME = 256
_CLOSE_SLACK_S = 0.5  # beyond the engine thread's own limit
_CALLBACKS_S = 1.0  # those of dropped tasks may take
_LONGEST_PAUSE_S = 0.5
_PATIENCE_S = 5.0  # then the end of a script says what it waits for, if that may never end
_MOST_FAILURES = 256  # that the core keeps
_LOOK_NS = 5_000_000  # how often a task that waits for all others looks


class Bound(Protocol):
    """Something that keeps numbers of functions, and options, of an engine."""

    def forget_engine(self) -> None:
        """They are not right any more."""


class Feed(Protocol):
    """Something that submits tasks by itself, perhaps without an end; its `repr` is for messages."""

    def nobody_reads_on(self) -> None:
        """The thread that calls this waits for the end of everything: stops if only that thread could go on with it."""


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
        self._is_alone = network is None and workers == 0 and made is None  # tasks run in this very process
        self._began_with = surroundings.Start.now()
        self._changes: bytes | None = None  # of the script's surroundings since; None: not looked at
        self._given = config  # before a block of load() had wishes of its own
        self._bound: weakref.WeakSet[Bound] = weakref.WeakSet()
        self._pid = os.getpid()
        self._watched: dict[int, Future[Any]] = {}
        self._called = threading.Condition(self._lock)  # callbacks have been called
        self._feeds: set[Feed] = set()
        self._calling = 0  # futures whose callbacks the notifier calls now
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
        self.loads = 0  # calls of load() whose blocks have not ended
        weakref.finalize(self, self._made.stop).atexit = False  # at exit it is closed first; then the kernel

    def start(self) -> Engine:
        """Starts the engine thread; workers come up by themselves."""
        check(lib.mt_driver_start(self._driver), "starting the engine thread")
        self._started = True
        for i in range(self._inline_workers):
            runner = Runner(self._inline_link(i))
            thread = threading.Thread(
                target=_run_inline, args=(self._made, self._runners, runner), name=f"mpitask-inline-{i}", daemon=True
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
        _run_inline(self._made, self._runners, runner)
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

    # -- what the script wants --

    def bind(self, app: Bound) -> None:
        """Something keeps what it knows of this engine, until it is told to forget it."""
        self._bound.add(app)

    def _with_surroundings(self, fn: Callable[..., Any]) -> Any:
        if self._is_alone:
            return fn
        here = surroundings.current()
        if here is not None:  # functions of tasks have what the task has
            changes = here.changes
        else:
            if self._changes is None:
                self._changes = self._look_around()
            changes = self._changes
        return surroundings.Carried(changes, fn) if changes else fn

    def _look_around(self) -> bytes:
        names = ("retries", "loss_retries")
        options = {name: getattr(self.config, name) for name in names}
        changed = options != {name: getattr(self._given, name) for name in names}
        return surroundings.changes_since(self._began_with, options if changed else {})

    def take_over(self, asked: dict[str, Any]) -> None:
        """A call of load() gets this engine, which runs already.

        Raises:
            ConfigurationError: the engine is not a job's, or another block has it, and it has other options.
        """
        late = {name: value for name, value in asked.items() if is_late(name)}
        if self.loads > 0 or not self.is_job:
            other = [name for name, value in asked.items() if not self._has(name, value)]
            if other:
                raise ConfigurationError(
                    f"an engine is loaded already, with other options ({', '.join(self._as_it_is(n) for n in other)}): "
                    "use it through mpitask.current(), or close it first with mpitask.current().close()"
                )
        else:
            for name in asked.keys() - late.keys():
                if not self._has(name, asked[name]):
                    _log.warning(
                        "load(%s=%r) has no effect here: the job runs already, with %s; give %s to `python -m mpitask`",
                        *(name, asked[name], self._as_it_is(name), flag_of(name)),
                    )
            self._reconfigure(make_config(self._given, late))
        self.loads += 1

    def _has(self, name: str, value: Any) -> bool:
        if name == "workers":
            return value in ("auto", self.config.workers, self._workers)
        has = getattr(self.config, name)
        try:
            return has is value or bool(has == value)
        except Exception:  # noqa: BLE001 - of an object of the user's
            return False

    def _as_it_is(self, name: str) -> str:
        has = getattr(self.config, name)
        return f"{name}={self._workers or has!r}" if name == "workers" and has == "auto" else f"{name}={has!r}"

    def _reconfigure(self, config: Config) -> None:
        """Goes on with other options. What looks after calls is made anew, and functions are sent anew, if need be."""
        if config != self.config:
            self.config = config
            lib.mt_driver_set_losses(self._driver, config.loss_retries)
            self.extension = None
        elif self._changes is None or self._look_around() == self._changes:
            return
        self._changes = None
        with self._lock:
            self._functions.clear()
        for app in list(self._bound):
            app.forget_engine()

    def _end_block(self) -> None:
        """The last block of load() has ended in order: what it wanted ends with it, as a program's own engine would."""
        closers, self._closers = self._closers, []
        self._call_closers(closers)
        self._reconfigure(self._given)
        self.extension = None

    # -- waiting --

    def wait(self, timeout: float | None = None) -> None:
        """Waits until all tasks have ended, those submitted meanwhile included.

        Raises:
            TimeoutError: after `timeout` seconds.
        """
        if self._pid != os.getpid():
            return  # a forked child has no tasks
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

    def begin_feed(self, feed: Feed) -> None:
        """From now on until `end_feed`, tasks come from there."""
        self._feeds.add(feed)

    def end_feed(self, feed: Feed) -> None:
        """No more come."""
        self._feeds.discard(feed)

    def finish(self) -> None:
        """Waits until nothing is left to do: all tasks have ended, and their callbacks, which may submit more."""
        if self._pid != os.getpid():
            return  # a forked child has no tasks
        began_s, has_spoken = time.monotonic(), False
        while True:
            while feeds := list(self._feeds):
                for feed in feeds:
                    feed.nobody_reads_on()
                with contextlib.suppress(TimeoutError):
                    self.wait(_LONGEST_PAUSE_S)
                    break
                if not has_spoken and time.monotonic() - began_s > _PATIENCE_S:
                    has_spoken = True
                    _log.warning("waiting for: %s", "; ".join(map(repr, feeds)))
            self.wait()
            if threading.current_thread() is self._notifier:
                return  # a callback that waits for all callbacks
            with self._lock:
                while (self._watched or self._calling) and not self._closed:
                    self._called.wait(_LONGEST_PAUSE_S)
            if not self.unfinished:
                return

    def wait_for_callbacks(self, futures: Iterable[Future[Any]]) -> None:
        """Waits until the callbacks of futures that are final have been called."""
        if threading.current_thread() is self._notifier or self._pid != os.getpid():
            return
        for future in futures:
            with self._lock:
                while future._owes_callbacks and not self._closed:
                    self._called.wait(_LONGEST_PAUSE_S)

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

        submitted and ended tasks; failed: of those that ended; ready: could run, and wait for a worker; slots: workers
        that are up;
        recalled: tasks taken back from a busy worker;
        objects: functions, shared and large values that the root holds; objects_sent: how often one was sent to a
        worker or rank right below; objects_mapped: of which the worker maps it;
        guards: sleeps after which there was work that nobody had woken the engine for (0, or something is wrong);
        neighbours: ranks right below; bells: those of them on this node, which are woken directly; of the engine's
        thread: steps, sleeps, frames_in, frames_out, cpu_ns.
        """
        return stats_of(self._driver)

    def unseen_failures(self) -> str:
        """How many tasks have failed of which nobody has got the exception, and the first; empty: there are none."""
        failures = [Future[Any](self, handle) for handle in self._unseen.handles()]
        names = [name_of(future) for future in failures]
        return describe(names, failures[0].why(), len(failures) < _MOST_FAILURES) if failures else ""

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
            self._need_notifier()
        return True

    def _need_notifier(self) -> None:
        if self._notifier is None:
            self._notifier = threading.Thread(target=_notify, args=(weakref.ref(self), self._made), daemon=True)
            self._notifier.name = "mpitask-notifier"
            self._notifier.start()

    def start_notifier(self) -> None:
        """So that `watch_unlocked` may be called."""
        with self._lock:
            if not self._closed:
                self._need_notifier()

    def watch_unlocked(self, handle: int, future: Future[Any]) -> bool:
        """As `_watch`, for finalizers: these may run while their thread holds any lock."""
        if self._closed or self._notifier is None:
            return False
        self._watched[handle] = future
        if lib.mt_driver_notify(self._driver, handle):
            return True
        self._watched.pop(handle, None)
        return False

    def _take_watched(self, handles: Sequence[int] | None) -> list[Future[Any]]:
        with self._lock:
            if handles is None:
                futures = list(self._watched.values())
                self._watched.clear()
                return futures
            found = [future for handle in handles if (future := self._watched.pop(handle, None)) is not None]
            self._calling = len(found)
            return found

    def _have_called(self) -> None:
        with self._lock:
            self._calling = 0
            self._called.notify_all()

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
            self.finish()
        with self._lock:
            first, self._closed = not self._closed, True
        if first and not self.is_job and (unseen := self.unseen_failures()):
            _log.warning("%s", unseen)
        self._call_closers(self._closers if first else ())
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
            self._notifier.join(timeout=_CALLBACKS_S if drop else None)
        for future in self._take_watched(None):
            future._became_final()
        running.ended(self)
        self._closers.clear()
        self.extension = None  # which refers to this: the memory of workers would stay until the next look for cycles
        return bool(lib.mt_driver_is_clean(self._driver))

    @staticmethod
    def _call_closers(closers: Sequence[Callable[[], None]]) -> None:
        for fn in closers:
            try:
                fn()
            except Exception:  # noqa: BLE001 - whatever fails there, the processes must end
                _log.exception("%r failed while the engine was closed", fn)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mode = self.config.exit_mode
        self.loads -= 1
        if mode == "skip":
            return
        if self.is_job or self.loads > 0:
            if kind is None and mode == "cleanup":
                self.cancel_all()
            if kind is None:
                self.finish()
                if self.loads == 0:
                    self._end_block()
            return
        try:
            self.close(drop=kind is not None or mode == "cleanup")
        except BaseException:
            self.close(drop=True)
            raise


def _run_inline(_made: Driver, runners: dict[int, Runner], runner: Runner) -> None:
    runners[threading.get_ident()] = runner
    try:
        runner.run()
    finally:
        del runners[threading.get_ident()]
        lib.mt_worker_close(runner.worker)


def _notify(ref: weakref.ref[Engine], made: Driver) -> None:
    """The notifier thread: completes futures that somebody watches."""
    handles = ffi.new("uint64_t[]", _NOTIFIED_AT_A_TIME)
    while True:
        got = lib.mt_driver_next_notified(made.pointer, handles, _NOTIFIED_AT_A_TIME, -1)
        if got == lib.MT_E_CLOSED:
            return
        engine = ref()
        if engine is None:
            return
        if got > 0:
            for future in engine._take_watched(ffi.unpack(handles, got)):
                future._became_final()
            engine._have_called()
            if engine._runners:
                engine.poke()
        future = engine = None  # type: ignore[assignment]


def start_here(config: Config) -> Engine:
    """Starts an engine on this machine alone, with the workers that the configuration asks for."""
    if config.inline:
        return Engine(config, workers=0, inline_workers=1).start()
    return Engine(config, workers=usable_cores() if config.workers == "auto" else config.workers).start()


def _tell_of_mistakes() -> None:
    """This program starts an engine of its own: says so where a whole job was meant."""
    size = mpi.launched_size()
    if size > 1:
        if launched_rank() == 0:
            _log.warning(
                "a launcher has started this program %d times, and each of them loads an engine of its own and does "
                "the same; for one program with %d ranks: mpiexec -n %d python -m mpitask %s",
                *(size, size, size, sys.argv[0] or "script.py"),
            )
    elif text := allocation.unused_nodes(f"python -m mpitask {sys.argv[0] or 'script.py'}"):
        _log.warning("%s", text)


def load(config: Config | None = None, **options: Any) -> Engine:
    """Starts an engine on this machine and makes it the current one; or, when one is running, gives that.

    Under `python -m mpitask` the engine of the job is running already. It takes over the options for the length of the
    block; those that say how ranks and workers are started come from the command line, and a warning names them.
    An engine that another call of `load` has made is given if it has the options that are asked for.

    Args:
        config: the options; the default is `Config()`.
        **options: options that replace those of `config`.

    Raises:
        ConfigurationError: an option is wrong, or an engine is loaded already and has other options.
    """
    wanted = make_config(config, options)
    asked = asked_for(config, options)
    engine = running.find()
    if engine is not None:
        engine.take_over(asked)
        return engine
    _tell_of_mistakes()
    engine = start_here(wanted)
    engine.loads = 1
    running.set_current(engine)
    return engine
