"""`parsl.executors.workqueue.executor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.executors._engine import EngineExecutor
from mpitask.compat.parsl.executors.errors import InvalidResourceSpecification
from mpitask.compat.parsl.providers.local.local import LocalProvider

_TOGETHER = frozenset({"cores", "memory", "disk"})


def check_sizes(resource_specification: Mapping[str, Any]) -> None:
    """Checks that cores, memory and disk are given all or not at all.

    Raises:
        InvalidResourceSpecification: they are not.
    """
    given = _TOGETHER & set(resource_specification)
    if given and given != _TOGETHER:
        raise InvalidResourceSpecification(given, "give cores, memory and disk, or none of them")


class WorkQueueExecutor(EngineExecutor):
    """Runs tasks on mpitask's worker processes. Resource specifications are checked, and each task takes one worker."""

    resource_keys: ClassVar[frozenset[str]] = frozenset(
        {"cores", "memory", "disk", "gpus", "priority", "running_time_min"}
    )

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        label: str = "WorkQueueExecutor",
        provider: Any = LocalProvider(),  # noqa: B008 - a constant
        working_dir: str = ".",
        project_name: str | None = None,
        project_password_file: str | None = None,
        address: str | None = None,
        port: int = 9123,
        env: dict[str, str] | None = None,
        shared_fs: bool = False,
        storage_access: Any = None,
        use_cache: bool = False,
        source: bool = False,
        pack: bool = False,
        extra_pkgs: list[str] | None = None,
        autolabel: bool = False,
        autolabel_window: int = 1,
        autocategory: bool = True,
        max_retries: int = 1,
        init_command: str = "",
        worker_options: str = "",
        full_debug: bool = True,
        worker_executable: str = "work_queue_worker",
        function_dir: str | None = None,
        coprocess: bool = False,
        scaling_cores_per_worker: int = 1,
        remote_monitoring_radio: Any = None,
    ) -> None:
        super().__init__()
        keep(self, locals())

    def validate_resource_spec(self, resource_specification: Mapping[str, Any]) -> None:
        """As the base class says."""
        super().validate_resource_spec(resource_specification)
        check_sizes(resource_specification)
