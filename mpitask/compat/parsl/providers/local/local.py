"""`parsl.providers.local.local`."""

from __future__ import annotations

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers import SingleNodeLauncher
from mpitask.compat.parsl.launchers.base import Launcher
from mpitask.compat.parsl.providers.base import ExecutionProvider
from mpitask.compat.parsl.utils import RepresentationMixin


class LocalProvider(RepresentationMixin, ExecutionProvider):
    """This machine."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        nodes_per_block: int = 1,
        launcher: Launcher = SingleNodeLauncher(),  # noqa: B008 - a constant
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 1,
        worker_init: str = "",
        cmd_timeout: int = 30,
        parallelism: float = 1,
    ) -> None:
        keep(self, locals())
