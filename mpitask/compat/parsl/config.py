"""`parsl.config`: the 17 options of a kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mpitask.compat.parsl._options import check_type, keep, refuse_unknown, wrong_type
from mpitask.compat.parsl.dataflow.dependency_resolvers import DependencyResolver
from mpitask.compat.parsl.dataflow.memoization import BasicMemoizer
from mpitask.compat.parsl.executors.base import ParslExecutor
from mpitask.compat.parsl.executors.threads import ThreadPoolExecutor
from mpitask.compat.parsl.logconfigs.base import LogConfig
from mpitask.compat.parsl.monitoring.monitoring import MonitoringHub
from mpitask.compat.parsl.usage_tracking.api import UsageInformation
from mpitask.compat.parsl.utils import RepresentationMixin
from mpitask.errors import ConfigurationError
from mpitask.memo import Memoizer

_OLD = frozenset({"app_cache", "checkpoint_files", "checkpoint_mode", "checkpoint_period"})
_EXIT_MODES = ("cleanup", "skip", "wait")


class Config(RepresentationMixin, UsageInformation):
    """What a kernel is made of. Its `repr` is an expression that makes the same.

    Args:
        executors: what runs tasks; none: two threads.
        memoizer: what remembers results; None: a `BasicMemoizer` without checkpoints.
        dependency_resolver: where futures are looked for, beyond where mpitask finds them: in all containers.
        exit_mode: what the end of `with parsl.load():` does. "cleanup": end the kernel, and drop what has not ended;
            "wait": wait for all tasks first, unless there was an exception; "skip": nothing.
        garbage_collect: False keeps the records of tasks that have ended in `dfk.tasks`.
        internal_tasks_max_threads: no effect.
        retries: how often a task is tried again.
        retry_handler: `retry_handler(exception, record)` gives what a failure costs of `retries`.
        run_dir: parent of the directories of runs.
        std_autopath: `std_autopath(record, "stdout")` gives the file for AUTO_LOGNAME.
        strategy: no effect.
        strategy_period: no effect.
        max_idletime: no effect.
        monitoring: no effect.
        usage_tracking: no effect.
        project_name: no effect.
        initialize_logging: True: `parsl.log` in the run's directory, with what is worth telling; `FileLogging()`: every
            step of every task, which makes short tasks twice as expensive; False: nothing; or another `LogConfig`.
        **old: what Parsl took until 2025: `app_cache`, `checkpoint_files`, `checkpoint_mode`, `checkpoint_period`. They
            make a `BasicMemoizer`.

    Raises:
        ConfigurationError: a value is out of its range; a wrong type too (as `TypeCheckError`).
    """

    executors: Sequence[ParslExecutor]
    memoizer: Memoizer | None
    dependency_resolver: DependencyResolver | None
    exit_mode: str
    garbage_collect: bool
    retries: int
    retry_handler: Callable[..., float] | None
    run_dir: str
    std_autopath: Callable[..., Any] | None
    monitoring: MonitoringHub | None
    initialize_logging: bool | LogConfig

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        executors: Iterable[ParslExecutor] | None = None,
        memoizer: Memoizer | None = None,
        dependency_resolver: DependencyResolver | None = None,
        exit_mode: str = "cleanup",
        garbage_collect: bool = True,
        internal_tasks_max_threads: int = 10,
        retries: int = 0,
        retry_handler: Callable[..., float] | None = None,
        run_dir: str = "runinfo",
        std_autopath: Callable[..., Any] | None = None,
        strategy: str | None = "simple",
        strategy_period: float = 5,
        max_idletime: float = 120.0,
        monitoring: MonitoringHub | None = None,
        usage_tracking: int = 0,
        project_name: str | None = None,
        initialize_logging: bool | LogConfig = True,
        **old: Any,
    ) -> None:
        memoizer = _memoizer_of(old, memoizer)
        keep(self, {name: value for name, value in locals().items() if name != "old"})
        for name, value, *allowed in (
            ("executors", executors, Iterable, None),
            ("memoizer", memoizer, Memoizer, None),
            ("exit_mode", exit_mode, str),
            ("dependency_resolver", dependency_resolver, DependencyResolver, None),
            ("garbage_collect", garbage_collect, bool),
            ("internal_tasks_max_threads", internal_tasks_max_threads, int),
            ("retries", retries, int),
            ("retry_handler", retry_handler, callable, None),
            ("run_dir", run_dir, str, os.PathLike),
            ("std_autopath", std_autopath, callable, None),
            ("strategy", strategy, str, None),
            ("strategy_period", strategy_period, int, float),
            ("max_idletime", max_idletime, int, float),
            ("monitoring", monitoring, MonitoringHub, None),
            ("usage_tracking", usage_tracking, int),
            ("project_name", project_name, str, None),
            ("initialize_logging", initialize_logging, bool, LogConfig),
        ):
            check_type(str(name), value, *allowed)
        self.executors = tuple(() if executors is None else executors) or (ThreadPoolExecutor(),)
        self.run_dir = os.fspath(run_dir)
        for executor in self.executors:
            check_type("executors", executor, ParslExecutor)
        if exit_mode not in _EXIT_MODES:
            raise wrong_type(f"exit_mode={exit_mode!r}: give one of {', '.join(map(repr, _EXIT_MODES))}")
        if not 0 <= usage_tracking <= 3:
            raise ConfigurationError(f"usage_tracking={usage_tracking!r}: give 0, 1, 2 or 3")
        self._check_labels()

    def _check_labels(self) -> None:
        labels = [executor.label for executor in self.executors]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ConfigurationError(
                f"Executors must have unique labels ({', '.join(map(repr, twice))} are given twice)"
            )

    def absolute_run_dir(self) -> str:
        """`run_dir`, whatever the working directory will be."""
        return str(Path(self.run_dir).absolute())


def _memoizer_of(old: dict[str, Any], memoizer: Any) -> Any:
    """The memoizer that older options stand for; without any, the given one."""
    refuse_unknown("Config", {name: value for name, value in old.items() if name not in _OLD})
    if not old:
        return memoizer
    if memoizer is not None:
        raise ConfigurationError(f"memoizer and {', '.join(old)} are given: give one")
    return BasicMemoizer(**{"memoize" if name == "app_cache" else name: value for name, value in old.items()})
