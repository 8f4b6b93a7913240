"""The kernel looks after calls that are more than one attempt at one task of the engine.

A call's life: its files and streams are prepared (`submit`); where values of its arguments are needed here (to look
for a memoised result, to join, to run in a thread of this process) it waits for them without a thread; then an attempt
is launched, and its end either ends the call's future or leads to the next attempt. Work beyond that is done in a small
pool of threads (`_pool`), never in the engine's notifier.

Thread rule: any thread may call `submit`.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import functools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpitask.dataflow import walk
from mpitask.dataflow.record import AUTO_LOGNAME, FINAL_STATES, AppFuture, TaskRecord
from mpitask.engine import Engine
from mpitask.errors import AppTimeout, ConfigurationError, DependencyError, JoinError, WorkerLost
from mpitask.files import File
from mpitask.futures import DataFuture, Future, Promise
from mpitask.memo import BasicMemoizer, Memoizer
from mpitask.staging import DEFAULT_STAGING, Staging, choose

_log = logging.getLogger("mpitask")

_POOL_THREADS = 10
_SIGXCPU = 24

Hook = Callable[[TaskRecord, str, str], None]
Body = Callable[..., Any]


class Kernel:
    """What the root knows beyond the engine: run directory, memoizer, hooks, and calls it looks after."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.config = engine.config
        self.hooks: list[Hook] = list(self.config.hooks)
        self.staging: Sequence[Staging] = DEFAULT_STAGING
        self._transfers = Transfers(self)
        self.tasks: dict[int, TaskRecord] = {}
        self.state_counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._run_dir: str | None = None
        self._memoizer: Memoizer | None = None
        self._pool = concurrent.futures.ThreadPoolExecutor(_POOL_THREADS, "mpitask-internal")
        engine.at_close(self.close)

    # -- the run --

    @property
    def looks_after_all(self) -> bool:
        """Whether even the plainest call is the kernel's: somebody wants to hear of each."""
        return bool(self.hooks) or self.config.retry_handler is not None

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
        with self._lock:
            if self._memoizer is not None:
                return self._memoizer
        run_dir = self.run_dir if self.config.memoizer is not None or self.config.checkpoint_mode is not None else ""
        with self._lock:
            if self._memoizer is None:
                made = self.config.memoizer or BasicMemoizer(
                    checkpoint_files=self.config.checkpoint_files,
                    checkpoint_period=self.config.checkpoint_period,
                    checkpoint_mode=self.config.checkpoint_mode,
                    memoize=self.config.app_cache,
                )
                made.start(run_dir=run_dir, config_run_dir=str(self.config.run_dir))
                self._memoizer = made
            return self._memoizer

    def close(self) -> None:
        """After the last task: the memoizer writes its checkpoint, threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            memoizer, self._memoizer = self._memoizer, None
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
        pool: concurrent.futures.Executor | None = None,
        executor: str = "engine",
        after: concurrent.futures.Future[Any] | None = None,
    ) -> AppFuture:
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
            pool: threads of this process that run it, in place of the engine.
            executor: the label of what runs it.
            after: what must end well before, apart from futures in the arguments.

        Raises:
            TypeError: `inputs` or `outputs` is not a list of what it should hold.
            EngineClosedError: the engine has ended.
        """
        future = AppFuture(self.engine, self.engine.promise_handle())
        name = name or getattr(func, "__name__", type(func).__name__)
        record = TaskRecord(
            id=future.tid,
            func_name=name,
            func=func,
            args=args,
            kwargs=kwargs,
            depends=[],
            executor=executor,
            status="unsched",
            app_fu=future,
            try_id=0,
            fail_count=0,
            fail_cost=0.0,
            fail_history=[],
            retries=self.config.retries if retries is None else retries,
            memoize=cache,
            ignore_for_cache=list(ignore_for_cache),
            hashsum=None,
            from_memo=None,
            outputs=[],
            joins=None,
            resource_specification=kwargs.get("parsl_resource_specification") or {},
            time_invoked=datetime.datetime.now(),  # local time, as people read it
            time_returned=None,
            kind=kind,
            priority=priority,
            pool=pool,
            memo_kwargs=memo_kwargs or {},
        )
        if callee is not None:
            record.callee = callee
        future.task_record = record
        try:
            self._prepare(record)
        except BaseException:
            future.cancel()
            raise
        self.tasks[future.tid] = record
        self._move(record, "pending")
        if after is not None:
            record["depends"].append(after)
        if cache or kind == "join" or pool is not None or after is not None:
            self._when_done(record, record["depends"], self._ready)
        else:
            self._launch(record)
        return future

    def _prepare(self, record: TaskRecord) -> None:
        """Streams, outputs, files: what is in the arguments by name."""
        future: AppFuture = record["app_fu"]
        kwargs = record["kwargs"] = dict(record["kwargs"])
        for name in ("inputs", "outputs"):
            if name in kwargs:
                if not isinstance(kwargs[name], list | tuple):
                    raise TypeError(f"{name}={kwargs[name]!r}: give a list")
                kwargs[name] = list(kwargs[name])
        for name in ("stdout", "stderr"):
            if kwargs.get(name) is not None:
                self._prepare_stream(record, name)
        outputs = []
        for i, file in enumerate(kwargs.get("outputs") or ()):
            if not isinstance(file, File):
                raise TypeError(f"outputs holds {file!r}: give Files, as in outputs=[File('result.txt')]")
            kwargs["outputs"][i] = file.cleancopy()
            outputs.append(self._output(record, kwargs["outputs"][i]))
        future.outputs = record["outputs"] = outputs
        self._stage_in(record)
        record["depends"] = walk.futures_in(record["args"], kwargs)

    def _prepare_stream(self, record: TaskRecord, name: str) -> None:
        future, kwargs = record["app_fu"], record["kwargs"]
        spec = kwargs[name]
        if isinstance(spec, int) and spec == AUTO_LOGNAME:
            spec = self._automatic(record, name)
            record["ignore_for_cache"].append(name)
        if isinstance(spec, File):
            file = spec.cleancopy()
            setattr(future, name, self._output(record, file))
            kwargs[name] = (file.filepath, "w")
            return
        path = spec[0] if isinstance(spec, tuple) and len(spec) == 2 else spec
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"{name}={spec!r}: give a path, (path, mode), a File, or AUTO_LOGNAME")
        kwargs[name] = spec if isinstance(spec, tuple) else os.fspath(spec)
        setattr(future, name, kwargs[name])

    def _automatic(self, record: TaskRecord, name: str) -> Any:
        if self.config.std_autopath is not None:
            return self.config.std_autopath(record, name)
        number, label = record["id"], record["kwargs"].get("label")
        stem = f"task_{number:04d}_{record['func_name']}" + (f"_{label}" if label else "")
        return os.path.join(  # noqa: PTH118 - a string, as people compare it
            self.run_dir, "task_logs", f"{number // 10000:04d}", f"{stem}.{name}"
        )

    def _output(self, record: TaskRecord, file: File) -> DataFuture:
        """The future of a file that the task makes; staging out included."""
        future: AppFuture = record["app_fu"]
        if file.scheme == "file":
            return DataFuture(future, file)
        provider = choose(self.staging, file, "out")
        moved = provider.stage_out(self._transfers, record["executor"], file, future)
        replaced = provider.replace_task_stage_out(self._transfers, record["executor"], file, record.callee)
        if replaced is not None:
            record.callee = replaced
        parent = moved if isinstance(moved, Future) else self.engine.adopt(moved) if moved is not None else future
        return DataFuture(parent, file)

    def _stage_in(self, record: TaskRecord) -> None:
        def bring(item: File | DataFuture) -> Any:
            file = item.file_obj if isinstance(item, DataFuture) else item
            if file.scheme == "file" or file.local_path is not None:
                return item
            copy = file.cleancopy()
            provider = choose(self.staging, copy, "in")
            parent = item.parent if isinstance(item, DataFuture) else None
            arrived = provider.stage_in(self._transfers, record["executor"], copy, parent)
            replaced = provider.replace_task(self._transfers, record["executor"], copy, record.callee)
            if replaced is not None:
                record.callee = replaced
            if arrived is None:
                return DataFuture(parent, copy) if parent is not None else copy
            return DataFuture(arrived if isinstance(arrived, Future) else self.engine.adopt(arrived), copy)

        kwargs = record["kwargs"]
        streams = {name: kwargs[name] for name in ("stdout", "stderr", "outputs") if name in kwargs}
        rest = {name: value for name, value in kwargs.items() if name not in streams}
        record["args"], rest = walk.replace((record["args"], rest), (File, DataFuture), bring)
        record["kwargs"] = rest | streams

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

    def _in_pool(self, record: TaskRecord, then: Callable[[TaskRecord], None]) -> None:
        def run() -> None:
            try:
                then(record)
            except BaseException as error:  # noqa: BLE001 - the call ends with it
                self._fail(record, error)

        try:
            self._pool.submit(run)
        except RuntimeError:  # the engine is ending
            record["app_fu"].cancel()

    def _ready(self, record: TaskRecord) -> None:
        """All futures in the arguments have ended."""
        if record["app_fu"].cancelled():
            self._move(record, "cancelled")
            return
        failed = [(error, future) for future in record["depends"] if (error := _error_of(future)) is not None]
        if failed:
            error, future = failed[0]
            cause = error.cause if isinstance(error, DependencyError) else getattr(future, "tid", -1)
            root = error.root if isinstance(error, DependencyError) else error
            self._fail(record, DependencyError(record["id"], getattr(future, "tid", -1), cause, root), "dep_fail")
            return
        if record["memoize"]:
            args, kwargs = walk.resolved(record["args"], record["kwargs"])
            known = self.memoizer.check_memo(_ForMemo(record, args, record["memo_kwargs"] | kwargs))
            if known is not None:
                known.add_done_callback(lambda future: self._in_pool(record, lambda r: self._take_memo(r, future)))
                return
        self._launch(record)

    def _take_memo(self, record: TaskRecord, known: concurrent.futures.Future[Any]) -> None:
        error = _error_of(known)
        if isinstance(error, concurrent.futures.CancelledError | WorkerLost | DependencyError):
            self._ready(record)  # it says nothing of the function: run it
            return
        record["from_memo"] = True
        if error is None:
            self._end(record, "memo_done", lambda: record["app_fu"].keep(known.result()))
        else:
            self._fail(record, error)

    def _launch(self, record: TaskRecord) -> None:
        """One attempt."""
        record["try_id"] = record["fail_count"]
        self._move(record, "launched")
        if record["kind"] == "join":
            args, kwargs = walk.resolved(record["args"], record["kwargs"])
            self._join(record, record["func"](*args, **kwargs))
            return
        if record["pool"] is not None:
            args, kwargs = walk.resolved(record["args"], record["kwargs"])
            ran = record["pool"].submit(record.callee, *args, **kwargs)
            ran.add_done_callback(lambda _: self._in_pool(record, lambda r: self._local_ended(r, ran)))
            return
        engine = self.engine
        try:
            target = engine.call(
                engine.function_id(record.callee), record["args"], record["kwargs"], record["priority"], 0
            )
        except Exception as error:  # noqa: BLE001 - arguments that cannot be pickled
            self._failed_attempt(record, error)
            return
        record.target = target
        target.add_done_callback(functools.partial(self._attempt_ended, record))

    def _attempt_ended(self, record: TaskRecord, target: Any) -> None:
        """In the notifier thread: hands work on that takes time."""
        if target.cancelled():
            self._end(record, "cancelled", record["app_fu"].cancel)
        elif target.task_status() == "done" and not record["memoize"]:
            self._end(record, "exec_done", lambda: record["app_fu"].forward(target))
        else:
            self._in_pool(record, lambda r: self._examine(r, target))

    def _examine(self, record: TaskRecord, target: Future[Any]) -> None:
        error = _error_of(target)
        if error is None:
            self.memoizer.update_memo_result(record, target.result())
            self._end(record, "exec_done", lambda: record["app_fu"].forward(target))
            return
        if isinstance(error, WorkerLost) and error.signal == _SIGXCPU and record["kwargs"].get("walltime") is not None:
            error = AppTimeout(
                f"App {record['func_name']} exceeded walltime: {record['kwargs']['walltime']} seconds; "
                "its process was ended, because the function did not let Python interrupt it"
            )
        if isinstance(error, DependencyError):
            self._fail(record, DependencyError(record["id"], error.via, error.cause, error.root), "dep_fail")
        else:
            self._failed_attempt(record, error)

    def _local_ended(self, record: TaskRecord, ran: concurrent.futures.Future[Any]) -> None:
        error = _error_of(ran)
        if error is not None:
            self._failed_attempt(record, error)
            return
        if record["memoize"]:
            self.memoizer.update_memo_result(record, ran.result())
        self._end(record, "exec_done", lambda: record["app_fu"].keep(ran.result()))

    def _failed_attempt(self, record: TaskRecord, error: BaseException) -> None:
        """Another attempt, if there is one left."""
        cost: float = 1
        if self.config.retry_handler is not None:
            try:
                cost = self.config.retry_handler(error, record)
            except Exception as raised:  # noqa: BLE001 - it is the handler's way of saying what the task ends with
                self._fail(record, raised)
                return
        record["fail_count"] += 1
        record["fail_cost"] += cost
        record["fail_history"].append(repr(error))
        if record["fail_cost"] <= record["retries"]:
            self._move(record, "fail_retryable")
            self._in_pool(record, self._launch)
            return
        if record["memoize"]:
            self.memoizer.update_memo_exception(record, error)
        self._fail(record, error)

    def _join(self, record: TaskRecord, value: Any) -> None:
        """The body of a join has returned what the call stands for."""
        if isinstance(value, concurrent.futures.Future):
            futures = [value]
        elif isinstance(value, list | tuple):
            futures = list(value)
        elif isinstance(value, dict):
            futures = list(value.values())
        else:
            futures = []
        if not isinstance(value, concurrent.futures.Future | list | tuple | dict) or not all(
            isinstance(future, concurrent.futures.Future) for future in futures
        ):
            raise TypeError(
                f"join_app {record['func_name']} must return a future, or a list, tuple or dict of futures; "
                f"it returned {value!r}"
            )
        record["joins"] = value
        self._move(record, "joining")
        self._when_done(record, futures, lambda r: self._joined(r, value, futures))

    def _joined(self, record: TaskRecord, value: Any, futures: Sequence[concurrent.futures.Future[Any]]) -> None:
        failures = [
            (error, f"task {getattr(future, 'tid', '?')}")
            for future in futures
            if (error := _error_of(future)) is not None
        ]
        if failures:
            self._fail(record, JoinError(record["id"], failures))
            return
        if isinstance(value, dict):
            result: Any = {key: future.result() for key, future in value.items()}
        elif isinstance(value, list | tuple):
            result = [future.result() for future in futures]
            result = result if isinstance(value, list) else tuple(result)
        else:
            result = value.result()
        if record["memoize"]:
            self.memoizer.update_memo_result(record, result)
        if isinstance(value, Promise) or not isinstance(value, Future) or value._engine is not self.engine:
            self._end(record, "exec_done", lambda: record["app_fu"].keep(result))
        else:
            self._end(record, "exec_done", lambda: record["app_fu"].forward(value))

    # -- ends --

    def _fail(self, record: TaskRecord, error: BaseException, state: str = "failed") -> None:
        record["exception"] = error
        self._end(record, state, lambda: record["app_fu"].set_exception(error))

    def _end(self, record: TaskRecord, state: str, tell: Callable[[], object]) -> None:
        with record.lock:
            if record["status"] in FINAL_STATES:
                return
            record["time_returned"] = datetime.datetime.now()
            self._count(record, state)
        self._tell_hooks(record, state)
        self.tasks.pop(record["id"], None)
        tell()

    def _move(self, record: TaskRecord, state: str) -> None:
        self._count(record, state)
        self._tell_hooks(record, state)

    def _count(self, record: TaskRecord, state: str) -> None:
        with self._lock:
            counts, old = self.state_counts, record["status"]
            if counts.get(old):
                counts[old] -= 1
            counts[state] = counts.get(state, 0) + 1
        record["before"], record["status"] = old, state

    def _tell_hooks(self, record: TaskRecord, state: str) -> None:
        for hook in self.hooks:
            try:
                hook(record, record["before"], state)
            except Exception:  # noqa: BLE001 - a hook must not decide about tasks
                _log.exception("the hook %r raised", hook)


class Transfers:
    """What staging providers need of the kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @property
    def working_dir(self) -> str:
        """Where files from elsewhere are brought."""
        return os.path.join(self._kernel.run_dir, "files")  # noqa: PTH118

    def submit(
        self, fn: Body, /, *args: Any, label: str, after: concurrent.futures.Future[Any] | None = None
    ) -> AppFuture:
        """Runs `fn(*args)` as a task once `after` has ended well."""
        return self._kernel.submit(fn, args, {}, name=label, after=after)


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


def _error_of(future: concurrent.futures.Future[Any]) -> BaseException | None:
    """The exception of a future that has ended; a cancelled one gives its CancelledError."""
    try:
        return future.exception()
    except concurrent.futures.CancelledError as error:
        return error


def make_run_dir(parent: str | os.PathLike[str]) -> str:
    """Makes `<parent>/<NNN>` with the first free number. Two programs that start at once get two.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        Path(parent).mkdir(parents=True, exist_ok=True)
        taken = [int(path.name) for path in Path(parent).iterdir() if path.name.isdigit()]
        number = max(taken, default=-1) + 1
        while True:
            try:
                path = os.path.join(parent, f"{number:03d}")  # noqa: PTH118
                Path(path).mkdir()
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise ConfigurationError(f"the run directory {os.fspath(parent)!r} cannot be made: {error}") from error


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
