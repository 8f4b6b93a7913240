"""`parsl.providers.kubernetes.kube`."""

from __future__ import annotations

from collections.abc import Sequence

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.providers.base import ExecutionProvider
from mpitask.compat.parsl.utils import RepresentationMixin


class KubernetesProvider(RepresentationMixin, ExecutionProvider):
    """Pods of Kubernetes."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        image: str,
        namespace: str = "default",
        nodes_per_block: int = 1,
        init_blocks: int = 4,
        min_blocks: int = 0,
        max_blocks: int = 10,
        max_cpu: float = 2,
        max_mem: str = "500Mi",
        init_cpu: float = 1,
        init_mem: str = "250Mi",
        extra_requests: dict[str, str] | None = None,
        extra_limits: dict[str, str] | None = None,
        parallelism: float = 1,
        worker_init: str = "",
        pod_name: str | None = None,
        user_id: str | None = None,
        group_id: str | None = None,
        run_as_non_root: bool = False,
        secret: str | None = None,
        persistent_volumes: Sequence[tuple[str, str]] = (),
        service_account_name: str | None = None,
        annotations: dict[str, str] | None = None,
    ) -> None:
        keep(self, locals())
