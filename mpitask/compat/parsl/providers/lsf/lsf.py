"""`parsl.providers.lsf.lsf`."""

from __future__ import annotations

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers import SingleNodeLauncher
from mpitask.compat.parsl.launchers.base import Launcher
from mpitask.compat.parsl.providers.cluster_provider import ClusterProvider


class LSFProvider(ClusterProvider):
    """Jobs of LSF."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        nodes_per_block: int = 1,
        cores_per_block: int | None = None,
        cores_per_node: int | None = None,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 1,
        parallelism: float = 1,
        walltime: str = "00:10:00",
        scheduler_options: str = "",
        worker_init: str = "",
        project: str | None = None,
        queue: str | None = None,
        cmd_timeout: int = 120,
        bsub_redirection: bool = False,
        request_by_nodes: bool = True,
        launcher: Launcher = SingleNodeLauncher(),  # noqa: B008 - a constant
    ) -> None:
        keep(self, locals())
