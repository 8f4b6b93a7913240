"""`parsl.app.python`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from mpitask.compat.parsl._options import is_compared_by_identity
from mpitask.compat.parsl._pools import Limited
from mpitask.compat.parsl.app.app import AppBase
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel
from mpitask.worker.call import PythonCall, call_within

_GUARDED = frozenset({"stdout", "stderr", "walltime"})


def timeout(f: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The function, in which AppTimeout is raised when it runs longer."""

    @functools.wraps(f)
    def limited(*args: Any, **kwargs: Any) -> Any:
        return call_within(seconds, getattr(f, "__name__", repr(f)), functools.partial(f, *args, **kwargs))

    return limited


class PythonApp(AppBase):
    """A Python function whose calls are tasks."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        func: Callable[..., Any],
        data_flow_kernel: DataFlowKernel | None = None,
        cache: bool = False,
        executors: Sequence[str] | str = "all",
        ignore_for_cache: Sequence[str] | None = None,
        join: bool = False,
    ) -> None:
        super().__init__(func, data_flow_kernel, executors, cache, ignore_for_cache)
        self.join = join
        self._in_worker = PythonCall(func, self.name)
        self._in_thread = Limited(func, self.name)

    def plain_function(self) -> Callable[..., Any] | None:
        """The function, or what calls it."""
        if type(self) is not PythonApp or self.join or self.cache or self._defaults:
            return None
        return self._callee_for({}, True)

    def _callee_for(self, kwargs: dict[str, Any], in_worker: bool) -> Callable[..., Any]:
        if _GUARDED.isdisjoint(kwargs) and is_compared_by_identity(self.func):
            return self.func
        return self._in_worker if in_worker else self._in_thread
