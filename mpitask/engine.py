"""The engine as Python sees it: start, submit, wait, end.

One `Engine` is the root of a job: it owns the C driver with its thread. Futures keep their engine alive, so that
their handles stay good after it has ended. There is at most one current engine in a process: the one that `load` made
or that `python -m mpitask` has made.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import logging
import marshal
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from mpitask import codec
from mpitask.config import Config, make_config
from mpitask.driver import Driver, Network, make_driver, stats_of
from mpitask.environment import usable_cores
from mpitask.errors import ConfigurationError, EngineClosedError, MpitaskError, NoEngineError, SerializationError
from mpitask.futures import Future, Promise
from mpitask.native import check, ffi, lib
from mpitask.shared import Shared
from mpitask.worker.runner import ProcessWorker, Runner

T = TypeVar("T")

_log = logging.getLogger("mpitask")

_FIRST_STATUS = 1 << 63  # a handle above is a status: see mt_driver_submit
_NOTIFIED_AT_A_TIME = 256
_CLOSE_SLACK_S = 0.5  # beyond the engine thread's own limit
_LOOK_NS = 5_000_000  # how often a task that waits for all others looks


class _Edges:
    """The futures met while the arguments of one call are pickled."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._index: dict[int, int] = {}
        self.futures: list[Future[Any]] = []

    def index_of(self, future: concurrent.futures.Future[Any]) -> int:
        index = self._index.get(id(future))
        if index is None:
            if not isinstance(future, Future) or future._engine is not self._engine:
                own: Future[Any] = self._engine.adopt(future)
            else:
                own = future
            index = self._index[id(future)] = len(self.futures)
            self.futures.append(own)
        return index


class _Captured:
    """The shared objects met while a function is pickled. They become the last dependencies of each of its calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.found: list[Future[Any]] = []

    def index_of(self, future: concurrent.futures.Future[Any]) -> int:
        if not isinstance(future, Shared):
            raise TypeError(codec.NO_FUTURE)
        own: Future[Any] = future if future._engine is self._engine else self._engine.adopt(future)
        if own not in self.found:
            self.found.append(own)
        return -1 - self.found.index(own)


class Engine:
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
        self.config = config
        self._made = made or make_driver(
            config, workers=workers, inline_workers=inline_workers, virtual_slots=virtual_slots, parent=-1
        )
        self._driver = self._made.pointer
        if network is not None:
            network.connect(self._driver)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._functions: dict[Callable[..., Any], int] = {}
        self._capturing: weakref.WeakKeyDictionary[Callable[..., Any], int] = weakref.WeakKeyDictionary()
        self._captured: dict[int, list[Future[Any]]] = {}  # what functions capture: edges of every call, the last first
        self._watched: dict[int, Future[Any]] = {}
        self._notifier: threading.Thread | None = None
        self._inline_threads: list[threading.Thread] = []
        self._runners: dict[int, Runner] = {}  # by thread: those who run tasks while they wait
        self._inline_workers = inline_workers
        self._workers = workers + inline_workers + virtual_slots
        self._adopted: weakref.WeakKeyDictionary[concurrent.futures.Future[Any], Future[Any]] = (
            weakref.WeakKeyDictionary()
        )
        self._started = False
        self._closed = False
        self.extension: Any = None  # what the layer above keeps with its engine
        self.extension_lock = threading.Lock()
        self._closers: list[Callable[[], None]] = []
        self.is_job = False  # made by `python -m mpitask`, which also ends it
        self.adoptions = 0  # blocks of load() that use a job's engine
        weakref.finalize(self, self._made.destroy).atexit = False  # at exit _close_at_exit comes first, the kernel last

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
        _engines.add(self)
        return self

    def serve_inline(self) -> None:
        """Starts the engine thread and runs tasks in this thread until the rank above says stop."""
        runner = Runner(self._inline_link(0))
        check(lib.mt_driver_start(self._driver), "starting the engine thread")
        self._started = self.is_job = True
        set_current(self)
        _run_inline(self._runners, runner)
        set_current(None)

    def _inline_link(self, i: int) -> Any:
        link = lib.mt_driver_inline_worker(self._driver, i)
        if not link:
            raise MemoryError("no memory for an inline worker")
        return link

    # -- submitting --

    def _priority_here(self) -> int:
        """What is added to the priority of a task that this thread submits: more within tasks."""
        runner = self._runners.get(threading.get_ident())
        return 0 if runner is None else int(lib.mt_worker_within(runner.worker))

    @property
    def max_workers(self) -> int:
        """Workers that run tasks: those that are up, or at least those that were asked for here."""
        return max(1, self._workers, self.stats()["slots"])

    def function_id(self, fn: Callable[..., Any]) -> int:
        """A function's id at the workers; its code and what it captures are sent as they are at the first call.

        The id of a function that captures a shared object is good as long as the function itself is there.

        Raises:
            SerializationError: the function cannot be pickled.
        """
        try:
            return self._functions[fn]
        except KeyError:
            pass
        number = self._capturing.get(fn) if self._capturing and _can_be_weak(fn) else None
        if number is not None:
            return number
        captured = _Captured(self)
        data = codec.encode_function(fn, captured)
        with self._lock:
            known: Any = self._capturing if captured.found and _can_be_weak(fn) else self._functions
            if fn not in known:
                number = lib.mt_driver_new_object_id(self._driver)
                status = lib.mt_driver_add_object(self._driver, number, codec.PICKLE, data, len(data))
                check(status, "registering a function")
                if captured.found:
                    self._captured[number] = captured.found
                if known is self._capturing:
                    weakref.finalize(fn, _drop_function, weakref.ref(self), number).atexit = False
                known[fn] = number
            return int(known[fn])

    def call(
        self, fn_id: int, args: tuple[Any, ...], kwargs: dict[str, Any], priority: int = 0, retries: int = 0
    ) -> Future[Any]:
        """Submits one call of a registered function.

        Raises:
            SerializationError: an argument cannot be pickled.
            EngineClosedError: the engine has ended.
        """
        if self._runners:
            priority += self._priority_here()
        if self._captured and fn_id in self._captured:
            return Future(self, self._submit_with(fn_id, args, kwargs, priority, retries))
        if not kwargs and not priority and not retries and _SCALARS.issuperset(map(type, args)):
            data = _dumps(args, 2)
            handle = _submit(self._driver, fn_id, _MARSHAL, data, len(data))
            if handle < _FIRST_STATUS:
                return Future(self, handle)
            self._raise_status(handle)
        if not kwargs and _FLAT.issuperset(map(type, args)):
            flat: list[Any] = []
            edges: list[int] = []
            for arg in args:
                if type(arg) not in _FUTURES:
                    flat.append(arg)
                elif arg._engine is self:
                    flat.append(...)
                    edges.append(arg._handle)
                else:
                    break
            else:
                data = _dumps(tuple(flat), 2)
                handle = _submit_edges(
                    self._driver, fn_id, _FLAT_CODEC, data, len(data), edges, len(edges), priority, retries
                )
                if handle < _FIRST_STATUS:
                    return Future(self, handle)
                self._raise_status(handle)
        return Future(self, self._submit_with(fn_id, args, kwargs, priority, retries))

    def call_span(
        self,
        fn_id: int,
        first: int,
        count: int,
        args: tuple[Any, ...],
        *,
        combine: int = 0,
        chunk: int = 0,
    ) -> Future[Any]:
        """Submits one task that stands for many items; ranks cut it for their workers.

        Its result is a `codec.Parts`, or what the function `combine` has made of that. See `codec.span_call`.
        """
        kind, data = codec.span_call(first, count, args, combine=combine, losses=self.config.loss_retries, chunk=chunk)
        priority = self._priority_here() if self._runners else 0
        edges = [future._handle for future in reversed(self._captured.get(fn_id, ()))]
        while True:
            handle = _submit_edges(self._driver, fn_id, kind, data, len(data), edges, len(edges), priority, 0)
            if handle < _FIRST_STATUS:
                return Future(self, handle)
            self._raise_status(handle)

    def combine_id(self, fn: Callable[[codec.Parts], Any]) -> int:
        """As `function_id`, for `call_span`; 0: the function captures shared objects, and ranks could not call it."""
        number = self.function_id(fn)
        return 0 if number in self._captured else number

    def _submit_with(
        self, fn_id: int, args: tuple[Any, ...], kwargs: dict[str, Any], priority: int, retries: int
    ) -> int:
        edges = _Edges(self)
        kind, parts = codec.encode_call(args, kwargs, edges)
        c_parts, _pointers = _c_parts(parts)
        futures = edges.futures
        if self._captured and fn_id in self._captured:
            futures = [*futures, *reversed(self._captured[fn_id])]
        handles = ffi.new("uint64_t[]", [future._handle for future in futures]) if futures else ffi.NULL
        while True:
            handle = lib.mt_driver_submit_with(
                self._driver, fn_id, kind, c_parts, len(parts), handles, len(futures), priority, retries
            )
            if handle < _FIRST_STATUS:
                return int(handle)
            self._raise_status(handle)

    def submit_handle(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> int:
        """Submits one call and gives the bare handle, with one reference that is the caller's. For futures."""
        return self._submit_with(self.function_id(fn), args, {}, 0, 0)

    def _raise_status(self, handle: int) -> None:
        """Raises for a status in place of a handle; returns when the call should be made again."""
        status = handle - (1 << 64)
        if status == lib.MT_E_INTR:
            return
        self._raise_if_failed()
        if status == lib.MT_E_CLOSED:
            raise EngineClosedError("this engine has ended: tasks can be submitted only while it runs")
        check(status, "submitting a task")

    def share(self, obj: T) -> Shared[T]:
        """Puts an object where tasks can read it, as `mpitask.share`.

        Raises:
            SerializationError: it cannot be pickled.
            EngineClosedError: the engine has ended.
        """
        kind, parts = codec.encode_shared(obj)
        c_parts, pointers = _c_parts(parts)
        while True:
            handle = lib.mt_driver_share(self._driver, kind, c_parts, len(parts))
            if handle < _FIRST_STATUS:
                return Shared(self, int(handle), type(obj).__qualname__, sum(map(len, pointers)))
            self._raise_status(handle)

    def promise(self) -> Promise[Any]:
        """A future without a task, to be ended with its `set_result` or `set_exception`."""
        return Promise(self, self.promise_handle())

    def promise_handle(self) -> int:
        """The bare handle of a new promise, with one reference that is the caller's. For kinds of `Promise`."""
        while True:
            handle = lib.mt_driver_promise(self._driver)
            if handle < _FIRST_STATUS:
                return int(handle)
            self._raise_status(handle)

    def adopt(self, future: concurrent.futures.Future[Any]) -> Future[Any]:
        """A future of this engine that follows one from elsewhere (a thread pool, another engine)."""
        if isinstance(future, Shared):
            own = self._adopted.get(future)
            if own is None:
                own = self._adopted[future] = self.share(future.result())
            return own
        with self._lock:
            known = self._adopted.get(future)
            if known is None:
                promise = self.promise()
                self._adopted[future] = known = promise
            else:
                return known

        def copy(source: concurrent.futures.Future[Any]) -> None:
            try:
                error = source.exception()
                if error is None:
                    promise.set_result(source.result())
                else:
                    promise.set_exception(error)
            except concurrent.futures.CancelledError:
                promise.cancel()
            except EngineClosedError:
                pass
            except Exception as failure:  # noqa: BLE001 - a value that cannot be pickled
                promise.set_exception(
                    SerializationError(f"the value of {source!r} cannot be sent to a task: {failure}")
                )

        future.add_done_callback(copy)
        return promise

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

        submitted and ended tasks; slots: workers that are up; recalled: tasks taken back from a busy worker;
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
        _engines.discard(self)
        _forget(self)
        return bool(lib.mt_driver_is_clean(self._driver))

    def _raise_if_failed(self) -> None:
        failure = lib.mt_driver_failure(self._driver)
        if failure == lib.MT_OK:
            return
        if failure == lib.MT_E_WORKERS:
            raise MpitaskError(
                "no worker process could be started: each one died before it was ready. Its standard error says why; "
                f"try `{sys.executable} -c 'import mpitask.worker.zygote'`"
            )
        check(failure, "the engine has ended because of an error")

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


_SCALARS = codec.SCALARS
_FUTURES = frozenset({Future, Shared})
_FLAT = _SCALARS | _FUTURES
_MARSHAL, _FLAT_CODEC = codec.MARSHAL, codec.FLAT
_dumps = marshal.dumps
_submit, _submit_edges = lib.mt_driver_submit, lib.mt_driver_submit_edges

_current: Engine | None = None
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _c_parts(parts: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Buffers as an array of mt_part, and what must be kept as long as it is used."""
    pointers = [ffi.from_buffer(part) for part in parts]
    c_parts = ffi.new("mt_part[]", len(parts))
    for i, pointer in enumerate(pointers):
        c_parts[i].data = pointer
        c_parts[i].size = len(pointer)
    return c_parts, pointers


def _can_be_weak(fn: Callable[..., Any]) -> bool:
    try:
        weakref.ref(fn)
    except TypeError:
        return False
    return True


def _drop_function(ref: weakref.ref[Engine], number: int) -> None:
    """A function that captured shared objects is gone: nobody can call it any more. Any thread, at any time."""
    engine = ref()
    if engine is not None:
        engine._captured.pop(number, None)
        lib.mt_driver_drop_object(engine._driver, number)


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
    engine = find()
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
    workers = usable_cores() if config.workers == "auto" else config.workers
    engine = Engine(config, workers=0 if config.inline else workers, inline_workers=int(config.inline))
    set_current(engine.start())
    return engine


def current() -> Engine:
    """The running engine; within a task, the one for its sub-tasks.

    Raises:
        NoEngineError: there is none.
    """
    engine = find()
    if engine is None:
        raise NoEngineError(
            "no engine is running: put `with mpitask.load():` around the code that calls apps, "
            "or start the script with `python -m mpitask script.py`"
        )
    return engine


def find() -> Engine | None:
    """As `current`, but None when there is none."""
    worker = ProcessWorker.current
    if _current is None and worker is not None and worker.is_here:
        from mpitask.nested import NestedEngine  # most workers never need it

        set_current(NestedEngine(worker).start())
    return _current


def share(obj: T) -> Shared[T]:
    """Makes an object ready for many tasks of the running engine: it is sent to each worker once.

    The handle stands for the object in the arguments of any call, at any depth, and in functions that capture it (as a
    default, in a closure, in `functools.partial`, as a global of the script). Functions get the object itself, always
    the same one on a worker: they must not change it. Arrays in it are read-only; large ones are not copied for
    workers on this node but mapped.

    Args:
        obj: anything that can be pickled, as it is now: later changes are not seen.

    Returns:
        The handle. The workers drop the object when it is gone and no task needs it.

    Raises:
        NoEngineError: no engine is running.
        SerializationError: the object cannot be pickled.
    """
    return current().share(obj)


def set_current(engine: Engine | None) -> None:
    """Makes an engine the current one."""
    global _current
    _current = engine


def _forget(engine: Engine) -> None:
    global _current
    if _current is engine:
        _current = None


def _close_at_exit() -> None:
    for engine in list(_engines):
        if engine.unfinished and not engine.is_job:
            _log.warning(
                "%d tasks were dropped because the program ended; `with mpitask.load():` waits for them",
                engine.unfinished,
            )
        engine.close(drop=True)


def _after_fork() -> None:
    global _current
    _current = None
    _engines.clear()


atexit.register(_close_at_exit)
os.register_at_fork(after_in_child=_after_fork)
