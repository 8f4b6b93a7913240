"""`parsl.providers.grid_engine.grid_engine`."""

from __future__ import annotations

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers import SingleNodeLauncher
from mpitask.compat.parsl.launchers.base import Launcher
from mpitask.compat.parsl.providers.cluster_provider import ClusterProvider


class GridEngineProvider(ClusterProvider):
    """Jobs of Grid Engine."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        nodes_per_block: int = 1,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 1,
        parallelism: float = 1,
        walltime: str = "00:10:00",
        scheduler_options: str = "",
        worker_init: str = "",
        launcher: Launcher = SingleNodeLauncher(),  # noqa: B008 - a constant
        cmd_timeout: int = 60,
        queue: str | None = None,
    ) -> None:
        keep(self, locals())
