"""`parsl.executors.taskvine.manager_config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class TaskVineManagerConfig:
    """Accepted in configurations."""

    port: int = 9123
    address: str | None = None
    project_name: str | None = None
    project_password_file: str | None = None
    env_vars: dict[str, str] | None = None
    init_command: str = ""
    env_pack: str | None = None
    app_pack: bool = False
    extra_pkgs: list[str] | None = None
    max_retries: int = 1
    library_config: dict[str, Any] | None = None
    shared_fs: bool = False
    autolabel: bool = False
    autolabel_algorithm: str = "max-xput"
    autolabel_window: int | None = None
    autocategory: bool = True
    enable_peer_transfers: bool = True
    wait_for_workers: int | None = None
    tune_parameters: dict[str, Any] | None = None
    vine_log_dir: str | None = None
