"""`parsl.providers.googlecloud.googlecloud`."""

from __future__ import annotations

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers import SingleNodeLauncher
from mpitask.compat.parsl.launchers.base import Launcher
from mpitask.compat.parsl.providers.base import ExecutionProvider
from mpitask.compat.parsl.utils import RepresentationMixin


class GoogleCloudProvider(RepresentationMixin, ExecutionProvider):
    """Machines of Google Cloud."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        project_id: str,
        key_file: str,
        region: str,
        os_project: str,
        os_family: str,
        google_version: str = "v1",
        instance_type: str = "n1-standard-1",
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 10,
        launcher: Launcher = SingleNodeLauncher(),  # noqa: B008 - a constant
        parallelism: float = 1,
    ) -> None:
        keep(self, locals())
