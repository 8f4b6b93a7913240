"""`parsl.executors.high_throughput.executor`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import psutil

from mpitask.compat.parsl import _pinning
from mpitask.compat.parsl._options import check_type, keep, refuse_unknown
from mpitask.compat.parsl.executors._engine import EngineExecutor
from mpitask.compat.parsl.executors.errors import InvalidResourceSpecification
from mpitask.compat.parsl.executors.high_throughput.manager_selector import ManagerSelector, RandomManagerSelector
from mpitask.compat.parsl.providers.local.local import LocalProvider

DEFAULT_LAUNCH_CMD = ""
DEFAULT_INTERCHANGE_LAUNCH_CMD: list[str] = []


class HighThroughputExecutor(EngineExecutor):
    """Runs tasks on mpitask's worker processes.

    What has an effect: `label`, `storage_access`, `working_dir`, and for an engine that the kernel starts itself
    `max_workers_per_node`, `cores_per_worker`, `mem_per_worker` and the number of `available_accelerators`, which say
    how many workers there are. Under `python -m mpitask` its command line says that. If such an engine serves no other
    executor of this kind, each worker finds its accelerator in CUDA_VISIBLE_DEVICES, and `cpu_affinity` holds.
    """

    meant: ClassVar[frozenset[str]] = frozenset(
        {"max_workers_per_node", "cores_per_worker", "mem_per_worker", "available_accelerators", "cpu_affinity"}
    )
    resource_keys: ClassVar[frozenset[str]] = frozenset({"priority"})

    max_workers_per_node: int | None
    cores_per_worker: float
    mem_per_worker: float | None
    available_accelerators: int | Sequence[str]
    cpu_affinity: str

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        label: str = "HighThroughputExecutor",
        provider: Any = None,
        launch_cmd: str | None = None,
        interchange_launch_cmd: Sequence[str] | None = None,
        address: str | None = None,
        loopback_address: str = "127.0.0.1",
        worker_port: int | None = None,
        worker_port_range: tuple[int, int] | None = (54000, 55000),
        interchange_port_range: tuple[int, int] | None = (55000, 56000),
        storage_access: Any = None,
        working_dir: str | None = None,
        worker_debug: bool = False,
        cores_per_worker: float = 1.0,
        mem_per_worker: float | None = None,
        max_workers_per_node: int | None = None,
        cpu_affinity: str = "none",
        available_accelerators: int | Sequence[str] = (),
        prefetch_capacity: int = 0,
        heartbeat_threshold: int = 120,
        heartbeat_period: int = 30,
        drain_period: int | None = None,
        poll_period: int = 10,
        address_probe_timeout: int | None = None,
        worker_logdir_root: str | None = None,
        manager_selector: ManagerSelector = RandomManagerSelector(),  # noqa: B008 - a constant
        block_error_handler: bool | Callable[..., None] = True,
        encrypted: bool = True,
        remote_monitoring_radio: Any = None,
        **old: Any,
    ) -> None:
        if "max_workers" in old and max_workers_per_node is None:
            max_workers_per_node = old.pop("max_workers")
        refuse_unknown(type(self).__name__, old)
        check_type("label", label, str)
        check_type("max_workers_per_node", max_workers_per_node, int, None)
        check_type("cores_per_worker", cores_per_worker, int, float)
        super().__init__()
        keep(self, {name: value for name, value in locals().items() if name != "old"})
        if provider is None:
            self.provider = LocalProvider()

    def wanted_workers(self, cores: int) -> int:
        """As many as cores, memory and accelerators of this machine give, at most `max_workers_per_node`."""
        limits = [cores / self.cores_per_worker if self.cores_per_worker > 0 else math.inf]
        if self.max_workers_per_node:
            limits.append(self.max_workers_per_node)
        if self.mem_per_worker:
            limits.append(psutil.virtual_memory().total / 2**30 / self.mem_per_worker)
        accelerators = self.available_accelerators
        if accelerators:
            limits.append(accelerators if isinstance(accelerators, int) else len(accelerators))
        fewest = min(limits)
        return max(1, int(fewest)) if fewest < math.inf else cores

    def worker_environment(self) -> dict[str, str]:
        """Accelerators and cores of the workers, as `_pinning` reads it."""
        accelerators = self.available_accelerators
        names = [str(i) for i in range(accelerators)] if isinstance(accelerators, int) else list(accelerators)
        found = {_pinning.ACCELERATORS: json.dumps(names)} if names else {}
        return found | ({} if self.cpu_affinity == "none" else {_pinning.AFFINITY: self.cpu_affinity})

    @property
    def workers_per_node(self) -> int:
        """As many as the options and what the provider says of its nodes allow; if they say nothing, all there are."""
        cores, memory = getattr(self.provider, "cores_per_node", None), getattr(self.provider, "mem_per_node", None)
        accelerators = self.available_accelerators
        limits = [
            self.max_workers_per_node,
            cores and self.cores_per_worker and cores / self.cores_per_worker,
            memory and self.mem_per_worker and memory / self.mem_per_worker,
            accelerators if isinstance(accelerators, int) else len(accelerators),
        ]
        known = [limit for limit in limits if limit]
        return max(1, int(min(known))) if known else super().workers_per_node

    def worker_limit(self) -> int | None:
        """`max_workers_per_node`."""
        return self.max_workers_per_node

    def validate_resource_spec(self, resource_specification: Mapping[str, Any]) -> None:
        """As the base class says: only `priority`, a number; lower ones go first."""
        super().validate_resource_spec(resource_specification)
        if not isinstance(resource_specification.get("priority", 0), int | float):
            raise InvalidResourceSpecification({"priority"}, "give a number; lower ones go first")
