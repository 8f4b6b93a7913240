"""`parsl.providers.torque.torque`."""

from __future__ import annotations

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers import AprunLauncher
from mpitask.compat.parsl.launchers.base import Launcher
from mpitask.compat.parsl.providers.cluster_provider import ClusterProvider


class TorqueProvider(ClusterProvider):
    """Jobs of Torque."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        account: str | None = None,
        queue: str | None = None,
        scheduler_options: str = "",
        worker_init: str = "",
        nodes_per_block: int = 1,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 1,
        parallelism: float = 1,
        launcher: Launcher = AprunLauncher(),  # noqa: B008 - a constant
        walltime: str = "00:20:00",
        cmd_timeout: int = 120,
    ) -> None:
        keep(self, locals())
