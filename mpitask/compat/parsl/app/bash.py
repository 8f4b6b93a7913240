"""`parsl.app.bash`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpitask.compat.parsl.app.app import AppBase
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel
from mpitask.worker.call import BashCall


class BashApp(AppBase):
    """A function that returns a command line; its calls are tasks that run it."""

    def __init__(
        self,
        func: Callable[..., Any],
        data_flow_kernel: DataFlowKernel | None = None,
        cache: bool = False,
        executors: Sequence[str] | str = "all",
        ignore_for_cache: Sequence[str] | None = None,
    ) -> None:
        super().__init__(func, data_flow_kernel, executors, cache, ignore_for_cache)
        self._call = BashCall(func, self.name)

    def callee(self, in_worker: bool) -> Callable[..., Any]:  # noqa: ARG002
        """What runs the command."""
        return self._call
