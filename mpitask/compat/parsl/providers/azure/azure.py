"""`parsl.providers.azure.azure`."""

from __future__ import annotations

from typing import Any

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers import SingleNodeLauncher
from mpitask.compat.parsl.launchers.base import Launcher
from mpitask.compat.parsl.providers.base import ExecutionProvider
from mpitask.compat.parsl.utils import RepresentationMixin


class AzureProvider(RepresentationMixin, ExecutionProvider):
    """Machines of Azure."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        vm_reference: dict[str, Any],
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 10,
        parallelism: float = 1,
        worker_init: str = "",
        location: str = "westus",
        group_name: str = "parsl.group",
        key_name: str | None = None,
        key_file: str | None = None,
        vnet_name: str = "parsl.vnet",
        linger: bool = False,
        launcher: Launcher = SingleNodeLauncher(),  # noqa: B008 - a constant
    ) -> None:
        keep(self, locals())
