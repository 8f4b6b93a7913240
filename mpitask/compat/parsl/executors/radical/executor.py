"""`parsl.executors.radical.executor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.executors._engine import EngineExecutor
from mpitask.compat.parsl.executors.radical.rpex_resources import ResourceConfig


class RadicalPilotExecutor(EngineExecutor):
    """Runs tasks on mpitask's worker processes; resource specifications have no effect."""

    def __init__(
        self,
        resource: str,
        label: str = "RPEX",
        bulk_mode: bool = False,
        working_dir: str | None = None,
        rpex_cfg: ResourceConfig | None = None,
        **rpex_pilot_kwargs: Any,
    ) -> None:
        super().__init__()
        keep(self, locals())

    def validate_resource_spec(self, resource_specification: Mapping[str, Any]) -> None:
        """Anything: it would be a description of a task for RADICAL-Pilot."""
