"""`parsl.providers.aws.aws`."""

from __future__ import annotations

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers import SingleNodeLauncher
from mpitask.compat.parsl.launchers.base import Launcher
from mpitask.compat.parsl.providers.base import ExecutionProvider
from mpitask.compat.parsl.utils import RepresentationMixin


class AWSProvider(RepresentationMixin, ExecutionProvider):
    """Machines of AWS."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        image_id: str,
        key_name: str,
        init_blocks: int = 1,
        min_blocks: int = 0,
        max_blocks: int = 10,
        nodes_per_block: int = 1,
        parallelism: float = 1,
        worker_init: str = "",
        instance_type: str = "t2.small",
        region: str = "us-east-2",
        spot_max_bid: float = 0,
        key_file: str | None = None,
        profile: str | None = None,
        iam_instance_profile_arn: str = "",
        state_file: str | None = None,
        walltime: str = "01:00:00",
        linger: bool = False,
        launcher: Launcher = SingleNodeLauncher(),  # noqa: B008 - a constant
    ) -> None:
        keep(self, locals())
