"""`parsl.executors.taskvine.executor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.executors._engine import EngineExecutor
from mpitask.compat.parsl.executors.taskvine.factory_config import TaskVineFactoryConfig
from mpitask.compat.parsl.executors.taskvine.manager_config import TaskVineManagerConfig
from mpitask.compat.parsl.executors.workqueue.executor import check_sizes


class TaskVineExecutor(EngineExecutor):
    """Runs tasks on mpitask's worker processes. Resource specifications are checked, and each task takes one worker."""

    resource_keys: ClassVar[frozenset[str]] = frozenset(
        {"cores", "memory", "disk", "gpus", "priority", "running_time_min", "category", "exec_mode"}
    )

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        label: str = "TaskVineExecutor",
        worker_launch_method: str = "factory",
        function_exec_mode: str = "regular",
        manager_config: TaskVineManagerConfig = TaskVineManagerConfig(),  # noqa: B008 - a constant
        factory_config: TaskVineFactoryConfig = TaskVineFactoryConfig(),  # noqa: B008 - a constant
        provider: Any = None,
        storage_access: Any = None,
        remote_monitoring_radio: Any = None,
    ) -> None:
        super().__init__()
        keep(self, locals())

    def validate_resource_spec(self, resource_specification: Mapping[str, Any]) -> None:
        """As the base class says."""
        super().validate_resource_spec(resource_specification)
        check_sizes(resource_specification)
