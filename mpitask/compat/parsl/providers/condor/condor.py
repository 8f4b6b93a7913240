"""`parsl.providers.condor.condor`."""

from __future__ import annotations

from collections.abc import Sequence

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers import SingleNodeLauncher
from mpitask.compat.parsl.launchers.base import Launcher
from mpitask.compat.parsl.providers.cluster_provider import ClusterProvider


class CondorProvider(ClusterProvider):
    """Jobs of HTCondor."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        nodes_per_block: int = 1,
        cores_per_slot: int | None = None,
        mem_per_slot: float | None = None,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 1,
        parallelism: float = 1,
        environment: dict[str, str] | None = None,
        project: str = "",
        scheduler_options: str = "",
        transfer_input_files: Sequence[str] = (),
        walltime: str = "00:10:00",
        worker_init: str = "",
        launcher: Launcher = SingleNodeLauncher(),  # noqa: B008 - a constant
        requirements: str = "",
        cmd_timeout: int = 60,
        cmd_chunk_size: int = 100,
    ) -> None:
        keep(self, locals())
