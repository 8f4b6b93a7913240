"""`parsl.concurrent`: a kernel behind the interface of `concurrent.futures`."""

from __future__ import annotations

import concurrent.futures
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

from mpitask.compat.parsl.app.python import PythonApp
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel, load
from mpitask.dataflow import AppFuture


class ParslPoolExecutor(concurrent.futures.Executor):
    """A `concurrent.futures.Executor` on a kernel.

    Args:
        config: loads a kernel of its own, which ends with it.
        dfk: uses this one.
        executors: labels of the executors to choose from, or "all".

    Raises:
        ValueError: not exactly one of `config` and `dfk` is given.
    """

    def __init__(
        self, config: Config | None = None, dfk: DataFlowKernel | None = None, executors: Sequence[str] | str = "all"
    ) -> None:
        if (config is None) == (dfk is None):
            raise ValueError("Specify only one of config or dfk" if config else "Must specify one of config or dfk")
        self._config = config
        self.executors = executors
        self._apps: dict[Callable[..., Any], PythonApp] = {}
        self._mine: list[AppFuture] = []
        self._dfk: DataFlowKernel | None = load(config) if dfk is None else dfk

    @property
    def app_count(self) -> int:
        """How many functions have been submitted."""
        return len(self._apps)

    def get_app(self, fn: Callable[..., Any]) -> PythonApp:
        """The app of a function."""
        if fn not in self._apps:
            self._apps[fn] = PythonApp(fn, data_flow_kernel=self._dfk, executors=self.executors)
        return self._apps[fn]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AppFuture:
        """Submits a call.

        Raises:
            RuntimeError: after `shutdown`.
        """
        if self._dfk is None:
            raise RuntimeError("Executor has been shut down.")
        future = self.get_app(fn)(*args, **kwargs)
        if len(self._mine) > 1000:
            self._mine = [known for known in self._mine if not known.done()]
        self._mine.append(future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; ends a kernel of its own.

        Args:
            wait: wait for all tasks of the kernel first.
            cancel_futures: cancel what no worker has.
        """
        dfk, self._dfk = self._dfk, None
        if dfk is None:
            return
        if cancel_futures:
            warnings.warn("cancel_futures: what a worker has already goes on", UserWarning, stacklevel=2)
            for future in self._mine:
                future.cancel()
        if wait:
            dfk.wait_for_current_tasks()
        if self._config is not None:
            dfk.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._config is not None:
            self.shutdown()
