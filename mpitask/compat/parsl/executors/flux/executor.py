"""`parsl.executors.flux.executor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.executors._engine import EngineExecutor
from mpitask.compat.parsl.providers.local.local import LocalProvider


class FluxExecutor(EngineExecutor):
    """Runs tasks on mpitask's worker processes. Resource specifications are checked, and each task takes one worker."""

    resource_keys: ClassVar[frozenset[str]] = frozenset({"num_tasks", "num_nodes", "cores_per_task", "gpus_per_task"})

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        provider: Any = None,
        working_dir: str | None = None,
        label: str = "FluxExecutor",
        flux_executor_kwargs: Mapping[str, Any] | None = None,
        flux_path: str | None = None,
        launch_cmd: str | None = None,
    ) -> None:
        super().__init__()
        keep(self, locals())
        if provider is None:
            self.provider = LocalProvider()
