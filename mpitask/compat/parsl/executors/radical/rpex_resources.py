"""`parsl.executors.radical.rpex_resources`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field


@dataclass
class ResourceConfig:
    """Accepted in configurations."""

    masters: int = 1
    workers: int = 1
    worker_gpus_per_node: int = 0
    worker_cores_per_node: int = 4
    cores_per_master: int = 1
    nodes_per_worker: int = 1
    pilot_env_mode: str = "client"
    pilot_env_path: str = ""
    pilot_env_type: str = "venv"
    pilot_env_name: str = "rp"
    pilot_env_pre_exec: list[str] = field(default_factory=list)
    pilot_env_setup: list[str] = field(default_factory=list)
    python_v: str = f"{sys.version_info[0]}.{sys.version_info[1]}"
    worker_type: str = "DefaultWorker"
