"""`parsl.providers.slurm.slurm`."""

from __future__ import annotations

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers import SingleNodeLauncher
from mpitask.compat.parsl.launchers.base import Launcher
from mpitask.compat.parsl.providers.cluster_provider import ClusterProvider


class SlurmProvider(ClusterProvider):
    """Jobs of Slurm."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        clusters: str | None = None,
        nodes_per_block: int = 1,
        cores_per_node: int | None = None,
        mem_per_node: float | None = None,
        gpus_per_node: int | None = None,
        gres: str | None = None,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 1,
        parallelism: float = 1,
        walltime: str = "00:10:00",
        scheduler_options: str = "",
        regex_job_id: str = r"Submitted batch job (?P<id>\S*)",
        worker_init: str = "",
        cmd_timeout: int = 10,
        status_batch_size: int = 50,
        exclusive: bool = True,
        launcher: Launcher = SingleNodeLauncher(),  # noqa: B008 - a constant
    ) -> None:
        keep(self, locals())
