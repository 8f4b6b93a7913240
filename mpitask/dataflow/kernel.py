"""The kernel looks after calls that are more than one attempt at one task of the engine.

A call's life: its files and streams are prepared (`submit`); where values of its arguments are needed here (to look
for a memoised result, to join, to run in a thread of this process) it waits for them without a thread; then an attempt
is launched, and its end either ends the call's future or leads to the next attempt. A call whose arguments hold no
future is looked up and launched by the thread that submits it; work beyond that is done in a small pool of threads
(`_pool`), not in the engine's notifier. Functions of joins, which may wait for calls, have threads of their own.

The end (`stop`, then `close`) may come while calls are between two of these steps. What an attempt has given is what
its call ends with, then as ever; no further attempt begins: a call without one is cancelled, a failed one has failed.

Thread rule: any thread may call `submit`.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from mpitask.dataflow import joins, walk
from mpitask.dataflow.prepare import Preparation, Transfers, holds_plain_values
from mpitask.dataflow.record import FINAL_STATES, CallFuture, TaskRecord, error_of, joining
from mpitask.dataflow.rundir import make_run_dir
from mpitask.dataflow.states import States
from mpitask.dataflow.threads import Threads
from mpitask.engine import Engine
from mpitask.errors import (
    AppTimeout,
    DependencyError,
    EngineClosedError,
    JoinError,
    WorkerLost,
    as_failure,
    shown,
    worker_lost,
)
from mpitask.futures import DataFuture, Future, Promise, name_of
from mpitask.memo import BasicMemoizer, Memoizer

_log = logging.getLogger("mpitask")

_POOL_THREADS = 4
_JOIN_THREADS = 10
_LAUNCH_LIMIT_S = 1.0
"""Longer than it takes to begin an attempt, unless an executor of the script's own is stuck there."""
_SIGXCPU = 24
_NOT_ASKED = object()

Body = Callable[..., Any]


class Kernel(Preparation):
    """What the root knows beyond the engine: run directory, memoizer, hooks, and calls it looks after."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(Transfers(self))
        self.engine = engine
        self.config = engine.config
        self.states = States(self.config.hooks)
        self._lock = threading.Lock()
        self._run_dir: str | None = None
        self._memoizer: Memoizer | None = None
        self._closed = False
        self._stopping = False
        self._launching: list[int] = []  # attempts that are being begun, by their threads
        self._launched = threading.Condition(self._lock)
        self._pool = Threads(_POOL_THREADS, "mpitask-internal")
        self._join_pool = Threads(_JOIN_THREADS, "mpitask-join")
        engine.at_close(self.close)

    # -- the run --

    @property
    def looks_after_all(self) -> bool:
        """Whether even the plainest call is the kernel's: somebody wants to hear of each."""
        return bool(self.states.hooks) or self.config.retry_handler is not None

    @property
    def run_dir(self) -> str:
        """This run's own directory, `<config.run_dir>/<number>`; made when it is first needed."""
        with self._lock:
            if self._run_dir is None:
                self._run_dir = make_run_dir(self.config.run_dir)
            return self._run_dir

    @property
    def memoizer(self) -> Memoizer:
        """The memoizer of this run, started."""
        known = self._memoizer
        if known is not None:
            return known
        with self._lock:
            if self._closed:
                raise EngineClosedError("this engine has ended, and what it remembers of earlier calls with it")
        run_dir = self.run_dir if self.config.memoizer is not None or self.config.checkpoint_mode is not None else ""
        with self._lock:
            if self._memoizer is None:
                made = self.config.memoizer or BasicMemoizer(
                    checkpoint_files=self.config.checkpoint_files,
                    checkpoint_period=self.config.checkpoint_period,
                    checkpoint_mode=self.config.checkpoint_mode,
                    memoize=self.config.app_cache,
                    cache_failures=self.config.cache_failures,
                )
                made.start(run_dir=run_dir, config_run_dir=str(self.config.run_dir))
                self._memoizer = made
            return self._memoizer

    def stop(self, timeout_s: float | None = None) -> None:
        """Begins no more attempts. Returns when those that other threads are beginning have begun."""
        me = threading.get_ident()
        with self._launched:
            self._stopping = True
            self._launched.wait_for(lambda: all(thread == me for thread in self._launching), timeout_s)

    def close(self) -> None:
        """After the last task, or in place of what is left: that is cancelled, the memoizer writes, threads end."""
        self.stop(_LAUNCH_LIMIT_S)
        self._join_pool.close()
        for record in list(self.states.tasks.values()):
            self.cancel(record)
        self._pool.close(drop=False)
        with self._lock:
            memoizer, self._memoizer, self._closed = self._memoizer, None, True
        if memoizer is not None:
            memoizer.close()

    # -- submitting --

    def submit(
        self,
        func: Body,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        callee: Callable[..., Any] | None = None,
        memo_kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        kind: str = "task",
        retries: int | None = None,
        priority: int = 0,
        cache: bool = False,
        ignore_for_cache: Sequence[str] = (),
        cache_key: str = "content",
        cache_failures: bool | None = None,
        identity: bytes | None = None,
        pool: concurrent.futures.Executor | None = None,
        executor: str = "engine",
        after: concurrent.futures.Future[Any] | None = None,
        label: str | None = None,
        resources: dict[str, Any] | None = None,
    ) -> CallFuture:
        """Submits a call.

        Args:
            func: the user's function.
            args: its positional arguments.
            kwargs: its keyword arguments.
            callee: what workers call in its place.
            memo_kwargs: further keyword arguments that count for memoisation.
            name: the app's name.
            kind: "task" or "join".
            retries: how often it is tried again; None: as the configuration says.
            priority: as in `python_app`.
            cache: as in `python_app`.
            ignore_for_cache: as in `python_app`.
            cache_key: as in `python_app`.
            cache_failures: as in `python_app`.
            identity: what the function is now, for memoisation; None: it is looked at when its arguments are known.
            pool: threads of this process that run it, in place of the engine.
            executor: the label of what runs it.
            after: what must end well before, apart from futures in the arguments.
            label: a part of the names of its log files, where `kwargs` has none.
            resources: what it needs, where `kwargs` has no `parsl_resource_specification`.

        Raises:
            TypeError: a keyword argument with a meaning has none of the types that it may have.
            BadCheckpoint: at the first memoised call: a checkpoint that it should begin with is damaged.
            EngineClosedError: the engine has ended.
            Exception: what `Config.std_autopath` raises.
        """
        future = CallFuture(self.engine, cancel=self.cancel)
        record = TaskRecord(
            {
                "func_name": name or getattr(func, "__name__", type(func).__name__),
                "func": func,
                "args": args,
                "kwargs": kwargs,
                "depends": [],
                "executor": executor,
                "status": "unsched",
                "app_fu": future,
                "try_id": 0,
                "fail_count": 0,
                "fail_cost": 0.0,
                "fail_history": [],
                "retries": self.config.retries if retries is None else retries,
                "memoize": cache and self.config.app_cache,
                "ignore_for_cache": list(ignore_for_cache),
                "cache_key": cache_key,
                "cache_failures": cache_failures,
                "identity": identity,
                "hashsum": None,
                "from_memo": None,
                "outputs": [],
                "joins": None,
                "resource_specification": _specification(kwargs, resources),
                "time_invoked": datetime.datetime.now(),  # local time, as people read it
                "time_returned": None,
                "kind": kind,
                "priority": priority,
                "pool": pool,
                "memo_kwargs": memo_kwargs or {},
                "label": label,
            }
        )
        if callee is not None:
            record.callee = callee
        future.task_record = record
        known: Any = _NOT_ASKED
        if record["memoize"]:
            self.memoizer  # noqa: B018 - started here, so that a bad checkpoint is told of where the call is made
            if after is None and not self.states.hooks and holds_plain_values(args, kwargs):
                known = self._look_up(record)
                if self._remember(record, known):
                    return future
        record["id"] = future.tid
        try:
            self._prepare(record)
        except BaseException:
            future.drop()
            raise
        if after is not None:
            record["depends"].append(after)
        self.states.begin(record)
        if known is not _NOT_ASKED:
            self._guarded(record, lambda r: self._go_on(r, known))
        elif not (record["memoize"] or kind == "join" or record["pool"] is not None or after is not None):
            self._launch(record)
        elif record["depends"]:
            self._when_done(record, record["depends"], self._ready)
        else:
            self._guarded(record, self._ready)
        return future

    # -- the life of a call --

    def _when_done(
        self,
        record: TaskRecord,
        futures: Sequence[concurrent.futures.Future[Any]],
        then: Callable[[TaskRecord], None],
    ) -> None:
        """Calls `then(record)` in the pool when all futures have ended, however they did. Holds no thread meanwhile."""

        def one_done(_: object) -> None:
            with record.lock:
                record.pieces_left -= 1
                last = record.pieces_left == 0
            if last:
                self._in_pool(record, then)

        record.pieces_left = len(futures) + 1
        for future in futures:
            future.add_done_callback(one_done)
        one_done(None)

    def _in_pool(
        self,
        record: TaskRecord,
        then: Callable[[TaskRecord], None],
        pool: Threads | None = None,
    ) -> None:
        try:
            (pool or self._pool).submit(lambda: self._guarded(record, then))
        except RuntimeError:  # the kernel has ended: what is known of the call is its end, and no attempt begins
            self._guarded(record, then)

    def _guarded(self, record: TaskRecord, then: Callable[[TaskRecord], None]) -> None:
        """Calls `then(record)`; if it raises, the call ends with that."""
        try:
            then(record)
        except BaseException as error:  # noqa: BLE001 - also what would end a program is only the end of the call
            self._fail(record, error)

    def _ready(self, record: TaskRecord, unusable: object = None) -> None:
        """All futures in the arguments have ended. `unusable`: what the memoizer has given for this call before."""
        for future in record["depends"]:
            error = error_of(future)
            if self._stopping and isinstance(error, concurrent.futures.CancelledError):
                self.states.end(record, "cancelled")  # as it is, whichever of the two is cancelled first
                return
            if error is not None:
                self._fail(record, _not_run(record, self._number_of(future), error, name_of(future)), "dep_fail")
                return
        known = None
        if record["memoize"] and record["status"] not in FINAL_STATES:
            known = self._look_up(record)
        self._go_on(record, None if known is unusable else known)

    def _look_up(self, record: TaskRecord) -> concurrent.futures.Future[Any] | None:
        """What the memoizer has for the call: an outcome, or the same call that is running, or nothing."""
        try:
            if not record["depends"] and not record["memo_kwargs"]:
                return self.memoizer.check_memo(record)
            args, kwargs = walk.resolved(record["args"], record["kwargs"])
            return self.memoizer.check_memo(_ForMemo(record, args, record["memo_kwargs"] | kwargs))
        except Exception as error:  # noqa: BLE001 - the call ends with it
            failed: concurrent.futures.Future[Any] = concurrent.futures.Future()
            failed.set_exception(error)
            return failed

    def _remember(self, record: TaskRecord, known: concurrent.futures.Future[Any] | None) -> bool:
        """Ends a call at once if it has a known result."""
        if known is None or not known.done() or error_of(known) is not None:
            return False
        record["app_fu"].remember(known.result())
        record["from_memo"] = True
        record["time_returned"] = record["time_invoked"]
        self.states.count(record, "memo_done")
        return True

    def _go_on(self, record: TaskRecord, known: concurrent.futures.Future[Any] | None) -> None:
        """After the memoizer has been asked."""
        if known is None:
            self._launch(record)
        elif known.done():
            self._take_memo(record, known)
        else:
            known.add_done_callback(lambda future: self._in_pool(record, lambda r: self._take_memo(r, future)))

    def _number_of(self, future: concurrent.futures.Future[Any]) -> int:
        """The number by which messages name a future."""
        if isinstance(future, Future | DataFuture):
            return future.tid
        return self.engine.adopt(future).tid

    def _take_memo(self, record: TaskRecord, known: concurrent.futures.Future[Any]) -> None:
        error = error_of(known)
        if isinstance(error, concurrent.futures.CancelledError | WorkerLost | DependencyError):
            self._ready(record, known)  # it says nothing of the function: run it
            return
        record["from_memo"] = True
        if error is None:
            self.states.end(record, "memo_done", value=known.result())
        else:
            self._fail(record, error)

    def _launch(self, record: TaskRecord, last_error: BaseException | None = None) -> None:
        """One attempt; while the kernel ends, the end of the call."""
        me = threading.get_ident()
        with self._lock:
            stopping = self._stopping
            if not stopping:
                self._launching.append(me)
        if stopping:
            self._end_unrun(record, last_error)
            return
        try:
            self._begin_attempt(record)
        finally:
            with self._launched:
                self._launching.remove(me)
                if self._stopping:
                    self._launched.notify_all()

    def _end_unrun(self, record: TaskRecord, last_error: BaseException | None = None) -> None:
        if last_error is None:
            self.states.end(record, "cancelled")
        else:
            self._fail(record, last_error)

    def _begin_attempt(self, record: TaskRecord) -> None:
        record["try_id"] = record["fail_count"]
        if not self.states.move(record, "launched"):
            return
        if record["kind"] == "join":
            self._in_pool(record, self._run_join, self._join_pool)
            return
        target: concurrent.futures.Future[Any]
        try:
            if record["pool"] is not None:
                args, kwargs = walk.resolved(record["args"], record["kwargs"])
                target = record["pool"].submit(record.callee, *args, **kwargs)
            else:
                fn_id = self.engine.function_id(record.callee)
                target = self.engine.call(fn_id, record["args"], record["kwargs"], record["priority"], 0)
        except Exception as error:  # noqa: BLE001 - arguments that cannot be pickled
            self._failed_attempt(record, error)
            return
        record.target = target
        if record["status"] in FINAL_STATES:  # cancelled meanwhile, by somebody who could not see the target
            target.cancel()
        target.add_done_callback(functools.partial(self._attempt_ended, record))

    def _attempt_ended(self, record: TaskRecord, target: concurrent.futures.Future[Any]) -> None:
        """In the notifier thread: hands work on that takes time."""
        if target.cancelled():
            self.states.end(record, "cancelled")
        elif isinstance(target, Future) and target.task_status() == "done" and not record["memoize"]:
            self.states.end(record, "exec_done", source=target)
        else:
            self._in_pool(record, lambda r: self._examine(r, target))

    def _examine(self, record: TaskRecord, target: concurrent.futures.Future[Any]) -> None:
        raised = error_of(target)
        error = None if raised is None else as_failure(raised)
        if error is None:
            value = target.result()
            self._note_result(record, value)
            if isinstance(target, Future):
                self.states.end(record, "exec_done", source=target)
            else:
                self.states.end(record, "exec_done", value=value)
            return
        if isinstance(error, WorkerLost):
            walltime_s = record["kwargs"].get("walltime")
            if error.signal == _SIGXCPU and walltime_s is not None:
                error = AppTimeout(
                    f"App {record['func_name']} exceeded walltime: {walltime_s} seconds; "
                    "its process was ended, because the function did not let Python interrupt it"
                )
            else:
                name = str(record["func_name"])
                error = worker_lost(record["id"], error.host, error.pid, error.wait_status, error.what, name)
        if (
            isinstance(target, Future)
            and target.task_status() == "dependency_failed"
            and isinstance(error, DependencyError)
        ):
            self._fail(record, _not_run(record, error.via, error, error.names[1]), "dep_fail")
        else:
            self._failed_attempt(record, error)

    def _note_result(self, record: TaskRecord, value: Any) -> None:
        """Tells the memoizer, unless that has ended: results that come later are known to nobody but their futures."""
        if record["memoize"]:
            memoizer = self._memoizer
            if memoizer is not None:
                memoizer.update_memo_result(record, value)

    def _failed_attempt(self, record: TaskRecord, error: BaseException) -> None:
        """Another attempt, if there is one left."""
        record.target = None
        record["fail_count"] += 1
        record["fail_history"].append(shown(error))
        cost: float = 1
        if self.config.retry_handler is not None:
            try:
                cost = self.config.retry_handler(error, record)
            except Exception as raised:  # noqa: BLE001 - it is the handler's way of saying what the task ends with
                self._fail(record, raised)
                return
        record["fail_cost"] += cost
        if record["fail_cost"] > record["retries"]:
            self._fail(record, error)
        elif self.states.move(record, "fail_retryable"):
            self._in_pool(record, lambda r: self._launch(r, error))

    def _run_join(self, record: TaskRecord) -> None:
        if self._stopping:
            self._end_unrun(record)
        if record["status"] in FINAL_STATES:
            return
        try:
            args, kwargs = walk.resolved(record["args"], record["kwargs"])
            joining.record = record
            try:
                value = record.callee(*args, **kwargs)
                for future in joins.futures_in(record, value):
                    if isinstance(future, CallFuture):
                        future.refuse_own()
            finally:
                joining.record = None
        except BaseException as error:  # noqa: BLE001 - whatever the function raises is the attempt's end
            self._failed_attempt(record, as_failure(error))
        else:
            self._join(record, value)

    def _join(self, record: TaskRecord, value: Any) -> None:
        """The body of a join has returned what the call stands for."""
        futures = joins.futures_in(record, value)
        record["joins"] = value
        if self.states.move(record, "joining"):
            self._when_done(record, futures, lambda r: self._joined(r, value, futures))

    def _joined(self, record: TaskRecord, value: Any, futures: Sequence[concurrent.futures.Future[Any]]) -> None:
        failures = joins.failures_of(futures)
        if failures:
            name = next((name_of(future) for future in futures if error_of(future) is not None), None)
            self._fail(record, JoinError(record["id"], failures, (str(record["func_name"]), name)))
            return
        result = joins.result_of(value)
        self._note_result(record, result)
        if isinstance(value, Future) and not isinstance(value, Promise) and value._engine is self.engine:
            self.states.end(record, "exec_done", source=value)
        else:
            self.states.end(record, "exec_done", value=result)

    # -- ends --

    def cancel(self, record: TaskRecord) -> bool:
        """Cancels a call unless a worker has it or it has ended; whether it is cancelled."""
        target = record.target
        if target is None or target.cancel():
            self.states.end(record, "cancelled")
        return bool(record["status"] == "cancelled")

    def _fail(self, record: TaskRecord, error: BaseException, state: str = "failed") -> None:
        error = as_failure(error)
        memoizer = self._memoizer
        if record["hashsum"] is not None and memoizer is not None:
            try:
                memoizer.update_memo_exception(record, error)
            except Exception:  # noqa: BLE001 - the call must end all the same
                _log.exception("%r could not take note that task %d has failed", memoizer, record["id"])
        self.states.end(record, state, error=error)


def _specification(kwargs: dict[str, Any], resources: dict[str, Any] | None) -> Any:
    """The call's own, else the app's."""
    given = kwargs.get("parsl_resource_specification")
    return (resources or {}) if given is None or (type(given) is dict and not given) else given


class _ForMemo(dict[str, Any]):
    """A record as a memoizer sees it: with the values of the arguments. What it writes goes to the record too."""

    def __init__(self, record: TaskRecord, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(record)
        self._record = record
        self["args"], self["kwargs"] = args, kwargs

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if key not in ("args", "kwargs"):
            self._record[key] = value


def _not_run(record: TaskRecord, via: int, error: BaseException, name: str | None) -> DependencyError:
    """What a call ends with whose argument, made by task `via` of app `name`, is not there because of `error`."""
    cause, root, first = via, error, name
    while isinstance(root, DependencyError):
        cause, first = root.cause, root.names[2]
        root = root.root
    return DependencyError(record["id"], via, cause, root, (str(record["func_name"]), name, first))


def kernel_of(engine: Engine) -> Kernel:
    """The kernel of an engine; made at the first call."""
    kernel = engine.extension
    if kernel is None:
        with engine.extension_lock:
            kernel = engine.extension
            if kernel is None:
                kernel = engine.extension = Kernel(engine)
    assert isinstance(kernel, Kernel)
    return kernel
