"""`parsl.executors.globus_compute`: tasks go to the endpoint of the executor that is given, not to the engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.executors.base import ParslExecutor
from mpitask.compat.parsl.utils import RepresentationMixin


class GlobusComputeExecutor(RepresentationMixin, ParslExecutor):
    """Runs tasks by an executor of Globus Compute."""

    executor: Any

    def __init__(
        self,
        executor: Any,
        label: str = "GlobusComputeExecutor",
        storage_access: Any = None,
        working_dir: str | None = None,
    ) -> None:
        super().__init__()
        keep(self, locals())

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Gives the call to the executor."""
        if resource_specification:
            self.executor.resource_specification = resource_specification
        future: Future[Any] = self.executor.submit(func, *args, **kwargs)
        return future

    def shutdown(self) -> None:
        """Ends the executor."""
        self.executor.shutdown()
