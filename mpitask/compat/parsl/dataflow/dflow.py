"""`parsl.dataflow.dflow`: the kernel, on one mpitask engine.

Plain calls are tasks of the engine (`_plain`). All others go through mpitask's `Kernel`. What Parsl adds is done by one
of its hooks: when an attempt begins, the hook says what runs it, by the label in the task's record. So a retry handler
may change that label.

Under `python -m mpitask`, or in `with mpitask.load():`, that engine is used, and left alone by `cleanup`. Otherwise
a kernel starts its own: worker processes if an executor is made for such, else none at all.
"""

from __future__ import annotations

import atexit
import collections
import concurrent.futures
import contextlib
import datetime
import itertools
import logging
import os
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpitask
from mpitask import running
from mpitask.compat.parsl import _pinning, _pools
from mpitask.compat.parsl._ignored import tell_of_ignored
from mpitask.compat.parsl._options import check_type, specification_of
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.data_provider.data_manager import PlacedFile, Providers, staging_for
from mpitask.compat.parsl.dataflow import _arguments
from mpitask.compat.parsl.dataflow._kernel import ParslKernel, kernel_on
from mpitask.compat.parsl.dataflow._plain import Binding, PlainCalls
from mpitask.compat.parsl.dataflow.states import FINAL_FAILURE_STATES, States
from mpitask.compat.parsl.executors._engine import EngineExecutor
from mpitask.compat.parsl.executors.base import ParslExecutor
from mpitask.compat.parsl.executors.threads import ThreadPoolExecutor
from mpitask.compat.parsl.log_utils import heard
from mpitask.compat.parsl.logconfigs.file import FileLogging
from mpitask.compat.parsl.version import VERSION
from mpitask.config import MAX_WORKERS
from mpitask.dataflow import AppFuture, TaskRecord, kernel_of
from mpitask.engine import Engine
from mpitask.environment import usable_cores
from mpitask.errors import ConfigurationError, NoEngineError
from mpitask.memo import Memoizer

if TYPE_CHECKING:
    from mpitask.compat.parsl.app.app import AppBase

_log = logging.getLogger("parsl")

INTERNAL = "_parsl_internal"
_STATE_NAMES = frozenset(States)
_LATE_RESULTS_S = 5.0

_own_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_kernels: weakref.WeakSet[DataFlowKernel] = weakref.WeakSet()


class DataFlowKernel:
    """Runs tasks. Any thread may call any method; `cleanup` once.

    Attributes:
        executors: label → executor.
        run_id: a UUID.
        cleanup_called: whether it has ended, or is about to.
    """

    def __init__(self, config: Config) -> None:
        check_type("config", config, Config)
        self._config = config
        self._resolver = _arguments.resolver_of(config)
        self.run_id = str(uuid.uuid4())
        self.cleanup_called = False
        self.monitoring = None
        self._kernel_calls = 0
        self.executors: dict[str, ParslExecutor] = {}
        self._gates: dict[str, _pools.Gate] = {}
        self._launches: dict[str, Iterator[int]] = collections.defaultdict(lambda: itertools.count(1))
        self._kept: dict[int, TaskRecord] | None = None if config.garbage_collect else {}
        self._lock = threading.Lock()
        self.plain: PlainCalls | None = None
        self.time_began = datetime.datetime.now()
        tell_of_ignored(config)
        self.engine, self._owned = self._find_engine()
        try:
            self._kernel = self._make_kernel()
            self._plain_calls = PlainCalls(self.engine, lambda: self, self._plain_failed)
            self._end_logging = self._begin_logging()
            if config.memoizer is not None:
                _ = self._kernel.memoizer  # a checkpoint that cannot be read is told of here
            self.add_executors(config.executors)
        except BaseException:
            if self._owned:
                self.engine.close(drop=True)
            raise
        self.executors[INTERNAL] = ThreadPoolExecutor(INTERNAL)
        if self._may_be_plain():
            self.plain = self._plain_calls
        self.engine.at_close(self._engine_ends)
        _kernels.add(self)

    # -- beginning --

    def _find_engine(self) -> tuple[Engine, bool]:
        found = running.current_engine
        if found is not None and found not in _own_engines:
            return found, False
        config = self._config
        clustered = [executor for executor in config.executors if isinstance(executor, EngineExecutor)]
        cores = usable_cores()
        wanted = min(MAX_WORKERS, sum(executor.wanted_workers(cores) for executor in clustered))
        os.environ["PARSL_WORKER_COUNT"] = str(wanted)  # for the tasks
        _pinning.hand_down(clustered[0].worker_environment() if len(clustered) == 1 else {})
        engine = Engine(self._core_config(wanted), workers=wanted, inline_workers=0 if wanted else 1).start()
        _own_engines.add(engine)
        return engine, True

    def _core_config(self, workers: int) -> mpitask.Config:
        config = self._config
        return mpitask.Config(
            workers=workers or "auto",
            inline=not workers,
            retries=config.retries,
            retry_handler=config.retry_handler,
            run_dir=config.absolute_run_dir(),
            std_autopath=config.std_autopath,
            memoizer=config.memoizer,
        )

    def _make_kernel(self) -> ParslKernel:
        if self._owned:
            kernel = kernel_on(self.engine, own=True)
        else:
            shared = kernel_of(self.engine)
            kernel = kernel_on(self.engine, own=False)
            kernel.config = self._core_config(0)
            kernel.states.hooks += shared.states.hooks
        kernel.states.hooks.append(self._task_moved)
        kernel.staging = Providers(self)
        return kernel

    def _begin_logging(self) -> Callable[[], None]:
        wanted = self._config.initialize_logging
        if wanted is False:
            return lambda: None
        kind = FileLogging(level=logging.INFO) if wanted is True else wanted
        _log.setLevel(logging.DEBUG)  # handlers have levels, too; see `heard`
        end = kind.initialize_logging(log_dir=Path(self.run_dir), log_name="parsl")
        _log.info("Parsl %s, run %s: %r", VERSION, self.run_id, self._config)
        return end

    def add_executors(self, executors: Sequence[ParslExecutor]) -> None:
        """Starts more executors. Those that are made for clusters share the engine, whose workers stay as many.

        Raises:
            ConfigurationError: a label is taken.
        """
        for executor in executors:
            if executor.label in self.executors:
                raise ConfigurationError(f"there is an executor with label {executor.label!r} already")
            executor.run_id = self.run_id
            executor.run_dir = self.run_dir if self._config.initialize_logging else self._config.absolute_run_dir()
            if isinstance(executor, EngineExecutor):
                executor.engine = self.engine
            executor.start()
            self.executors[executor.label] = executor
            kind = f"{type(executor).__module__}.{type(executor).__qualname__}".removeprefix("mpitask.compat.")
            extra = {"parsl.dfk": self.run_id, "parsl.executor.label": executor.label, "parsl.executor.type": kind}
            _log.info("Executor %s of type %s", executor.label, kind, extra=extra)
        clustered = [executor for executor in self.executors.values() if isinstance(executor, EngineExecutor)]
        if len(clustered) > 1:
            for executor in clustered:
                limit = executor.worker_limit()
                if limit is not None and executor.label not in self._gates:
                    self._gates[executor.label] = _pools.Gate(self.engine, limit)
        self._no_internal = [label for label in self.executors if label != INTERNAL]
        self._plain_calls.epoch = object()

    def _may_be_plain(self) -> bool:
        """Whether nobody wants to hear of each call."""
        config, hooks = self._config, self._kernel.states.hooks
        return (
            config.garbage_collect
            and not config.retries
            and config.retry_handler is None
            and config.monitoring is None
            and self._resolver is None
            and len(hooks) == 1
        )

    def bind_plain(self, app: AppBase) -> Binding:
        """How plain calls of an app are made, if it has any."""
        func = app.plain_function()
        labels = tuple(self._no_internal if isinstance(app.executors, str) else app.executors)
        known = [self.executors.get(label) for label in labels]
        is_plain = func is not None and all(
            isinstance(executor, EngineExecutor)
            and executor.runs_calls_as_they_are
            and executor.label not in self._gates
            for executor in known
        )
        try:
            if is_plain and func is not None:
                self.engine.function_id(func)
        except Exception:  # noqa: BLE001 - a function that cannot be pickled: its calls fail
            func = None
        is_plain = is_plain and func is not None
        return Binding(self._plain_calls, app, func, labels if is_plain else ())

    def _plain_failed(self, record: TaskRecord) -> None:
        self._log_move(record, States.launched, record["status"])

    # -- what scripts look at --

    @property
    def config(self) -> Config:
        """The configuration, as it was given."""
        return self._config

    @property
    def run_dir(self) -> str:
        """This run's own directory; made when it is first needed."""
        return self._kernel.run_dir

    @property
    def memoizer(self) -> Memoizer:
        """What remembers results."""
        return self._kernel.memoizer

    @property
    def tasks(self) -> dict[int, TaskRecord]:
        """Records of tasks by their numbers: of those that have not ended, or of all (`garbage_collect=False`)."""
        if self._kept is not None:
            return self._kept
        plain = {future.tid: future.task_record for future in self._plain_calls.unfinished()}
        return plain | self._kernel.states.tasks

    @property
    def task_count(self) -> int:
        """How many tasks there have been."""
        return self._kernel_calls + self._plain_calls.count

    @property
    def task_state_counts(self) -> dict[States, int]:
        """How many tasks are in each state."""
        plain = self._plain_calls.counts()
        return {state: self._kernel.states.counts.get(state, 0) + plain[state] for state in States}

    def checkpoint(self) -> None:
        """Has the memoizer write what it has."""
        memoizer: Any = self.memoizer
        memoizer.checkpoint()

    def log_task_states(self) -> None:
        """Writes how many tasks are in each state to the log."""
        _log.info("Summary of tasks in DFK:")
        for state, count in self.task_state_counts.items():
            if count:
                _log.info("Tasks in state States.%s: %d", state.name, count)

    # -- submitting --

    def submit(  # noqa: PLR0917 - as Parsl has it
        self,
        func: Callable[..., Any],
        app_args: Sequence[Any],
        executors: str | Sequence[str] = "all",
        cache: bool = False,
        ignore_for_cache: Sequence[str] | None = None,
        app_kwargs: Mapping[str, Any] | None = None,
        join: bool = False,
        *,
        callee: Callable[[bool], Callable[..., Any]] | None = None,
        name: str | None = None,
    ) -> AppFuture:
        """Submits a call.

        Args:
            func: the function.
            app_args: its arguments.
            executors: labels to choose from, or "all".
            cache: whether a known result is taken.
            ignore_for_cache: names of arguments that do not count for that.
            app_kwargs: keyword arguments.
            join: whether the function returns futures, and the call stands for them.
            callee: what is run in place of the function: in a worker (True), or in this process (False).
            name: the app's name.

        Raises:
            NoDataFlowKernelError: the kernel has ended.
            IndexError: `executors` is empty.
            TypeError: `inputs` or `outputs` is not a list of what it should hold.
        """
        if self.cleanup_called:
            raise NoEngineError("Cannot submit to a DFK that has been cleaned up")
        kwargs = dict(app_kwargs or {})
        label = (
            INTERNAL if join else random.choice(self._no_internal if isinstance(executors, str) else list(executors))
        )
        spec = specification_of(kwargs)
        pool = None if join else self._pool_for(label, spec)
        in_worker = isinstance(self.executors.get(label), EngineExecutor)
        run = None if join or callee is None else callee(in_worker)
        executor = self.executors.get(label)
        if isinstance(executor, EngineExecutor) and not isinstance(pool, _pools.Refusal):
            run = executor.prepare(func if run is None else run, spec)
        staged: str | None = label
        if kwargs.get("_parsl_staging_inhibit"):
            staged = None
            if "outputs" in kwargs:
                kwargs["outputs"] = [PlacedFile.of(file) for file in kwargs["outputs"]]
        with staging_for(staged):
            future = self._kernel.submit(
                func,
                tuple(app_args),
                kwargs,
                callee=run,
                name=name,
                kind="join" if join else "task",
                priority=_arguments.priority_of(spec),
                cache=cache,
                ignore_for_cache=() if ignore_for_cache is None else ignore_for_cache,
                cache_key="name",
                cache_failures=True,
                pool=pool,
                executor=label,
                after=None if self._resolver is None else _arguments.gathered(self._resolver, app_args, kwargs),
            )
        if future.outputs:
            vars(future)["_outputs"] = future.outputs  # staging providers look there
        if self._kept is not None:
            record = future.task_record
            assert isinstance(record, TaskRecord)
            self._kept[future.tid] = record
        return future

    def submit_transfer(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        executor: str | None,
        name: str,
        after: concurrent.futures.Future[Any] | None,
    ) -> AppFuture:
        """Submits a call that moves a file, for a staging provider."""
        executor = self._no_internal[0] if executor is None else executor
        pool = self._pool_for(executor, {})
        return self._kernel.submit(fn, args, {}, name=name, pool=pool, executor=executor, after=after)

    def _pool_for(self, label: str, spec: Mapping[str, Any]) -> concurrent.futures.Executor | None:
        """What runs the calls of an executor; None: simply the engine."""
        executor = self.executors.get(label)
        if executor is None:
            return _pools.Refusal(ValueError(f"requested invalid executor {label}"))
        if not isinstance(executor, EngineExecutor):
            return _pools.Local(executor)
        try:
            executor.validate_resource_spec(spec)
        except Exception as error:  # noqa: BLE001 - it becomes the call's
            return _pools.Refusal(error)
        return self._gates.get(label)

    def _task_moved(self, record: TaskRecord, old: str, new: str) -> None:
        """The kernel's hook."""
        if new == States.pending:
            record.update(dfk=self, join=record["kind"] == "join", routed=record["executor"])
            if record["executor"] not in self.executors:
                record["pool"] = self._pool_now(record)
            with self._lock:
                self._kernel_calls += 1
        elif new == States.launched:
            record["try_time_launched"] = datetime.datetime.now()
            if record["executor"] != record["routed"]:  # a retry handler has changed it
                record.update(routed=record["executor"], pool=self._pool_now(record))
            if self._resolver is not None:
                _arguments.unwrap(self._resolver, record)
        self._log_move(record, old, new)
        with record.lock:
            if record["status"] == new and new in _STATE_NAMES:
                record["status"] = States(new)

    def _log_move(self, record: TaskRecord, old: str, new: str) -> None:
        level = logging.WARNING if new in FINAL_FAILURE_STATES else logging.DEBUG
        if not heard(_log, level):
            return
        number, name = record["id"], record["func_name"]
        extra = {"parsl.dfk": self.run_id, "parsl.task": number, "parsl.app_name": name, "parsl.task_state": str(new)}
        extra["parsl.try"] = record["try_id"]
        if new == States.pending:
            for future in record["depends"]:
                known = {"parsl.dependency_object": repr(future), "parsl.dependency_task": getattr(future, "tid", None)}
                _log.debug("Task %d depends on %r", number, future, extra=extra | known)
        if new == States.launched:
            extra |= {"parsl.executor": record["executor"]}
            if isinstance(self.executors.get(record["executor"]), EngineExecutor):
                extra["parsl.executor_task"] = next(self._launches[record["executor"]])
        _log.log(level, "Task %d of app %s: %s -> %s", number, name, old, new, extra=extra)

    def _pool_now(self, record: TaskRecord) -> concurrent.futures.Executor | None:
        label = record["executor"]
        if label not in self.executors:
            return _pools.Refusal(ValueError(f"Task {record['id']} requested invalid executor {label}"))
        return self._pool_for(label, record["resource_specification"])

    # -- ending --

    def wait_for_current_tasks(self) -> None:
        """Waits for the tasks that there are now, however they end."""
        futures: list[AppFuture] = [record["app_fu"] for record in list(self._kernel.states.tasks.values())]
        for future in futures + self._plain_calls.unfinished():
            with contextlib.suppress(Exception):
                future.exception()

    def cleanup(self) -> None:
        """Ends the kernel: what has not ended is dropped, but for what threads run. Checkpoints are written.

        Raises:
            Exception: it has been called before.
        """
        with self._lock:
            if self.cleanup_called:
                raise Exception("attempt to clean up DFK when it has already been cleaned-up")
            self.cleanup_called = True
        self.plain = None
        self._plain_calls.flush()
        self.log_task_states()
        self._kernel.stop()
        begun = [
            record
            for record in list(self._kernel.states.tasks.values())
            if record["status"] == States.launched and isinstance(record["pool"], _pools.Local)
        ]
        for executor in self.executors.values():
            executor.shutdown()
        deadline = time.monotonic() + _LATE_RESULTS_S
        for record in begun:
            # Functions of threads have returned, and their results are on the way. Others' executors may have dropped
            # what they had.
            left = None if record["pool"].returns_all else max(0.0, deadline - time.monotonic())
            with contextlib.suppress(Exception):
                record["app_fu"].exception(left)
        try:
            if self._owned:
                self.engine.close(drop=True)
            else:
                for plain in self._plain_calls.unfinished():
                    plain.cancel()
                self._kernel.close()
        finally:
            if DataFlowKernelLoader._dfk is self:
                DataFlowKernelLoader.clear()
            _log.info("DFK cleanup complete")
            self._end_logging()

    def _engine_ends(self) -> None:
        """The engine ends without `cleanup`: threads begin nothing more."""
        for executor in self.executors.values():
            if isinstance(executor, ThreadPoolExecutor):
                executor.shutdown(block=False)

    def __enter__(self) -> DataFlowKernel:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        mode = self._config.exit_mode
        if mode == "skip":
            return
        if mode == "wait" and kind is None:
            self.wait_for_current_tasks()
        self.cleanup()


class DataFlowKernelLoader:
    """The kernel that apps use when they are bound to no other one."""

    _dfk: DataFlowKernel | None = None

    @classmethod
    def load(cls, config: Config | None = None) -> DataFlowKernel:
        """Makes a kernel and loads it.

        Raises:
            ConfigurationError: one is loaded already.
        """
        if cls._dfk is not None:
            raise ConfigurationError("Config has already been loaded")
        cls._dfk = DataFlowKernel(Config() if config is None else config)
        if cls._dfk._owned:
            running.set_current(cls._dfk.engine)  # for apps of mpitask's own face
        return cls._dfk

    @classmethod
    def dfk(cls) -> DataFlowKernel:
        """The loaded kernel.

        Raises:
            NoDataFlowKernelError: there is none.
        """
        if cls._dfk is None:
            raise NoEngineError("Must first load config")
        return cls._dfk

    @classmethod
    def clear(cls) -> None:
        """Forgets the loaded kernel, which goes on."""
        cls._dfk = None

    @classmethod
    def wait_for_current_tasks(cls) -> None:
        """Waits for the tasks that the loaded kernel has now."""
        cls.dfk().wait_for_current_tasks()


load = DataFlowKernelLoader.load
dfk = DataFlowKernelLoader.dfk
clear = DataFlowKernelLoader.clear
wait_for_current_tasks = DataFlowKernelLoader.wait_for_current_tasks


def _at_exit() -> None:
    """Before engines are closed, which tell of tasks that they drop: what has ended is given time to be known there."""
    deadline = time.monotonic() + 1
    for kernel in list(_kernels):
        while (
            kernel._owned
            and not kernel._kernel.states.tasks
            and not kernel._plain_calls.unfinished()
            and kernel.engine.unfinished
            and time.monotonic() < deadline
        ):
            time.sleep(0.001)


atexit.register(_at_exit)
