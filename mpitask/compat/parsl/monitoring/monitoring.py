"""`parsl.monitoring.monitoring`."""

from __future__ import annotations

import warnings
from typing import Any

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.utils import RepresentationMixin


class MonitoringHub(RepresentationMixin):
    """Accepted in configurations, where it is named among the options that have no effect."""

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        hub_address: Any = None,
        hub_port_range: Any = None,
        hub_port: Any = None,
        workflow_name: str | None = None,
        workflow_version: str | None = None,
        logging_endpoint: str | None = None,
        monitoring_debug: bool = False,
        resource_monitoring_enabled: bool = True,
        resource_monitoring_interval: float = 30,
    ) -> None:
        keep(self, locals())
        for name in ("hub_address", "hub_port_range", "hub_port"):
            if getattr(self, name) is not None:
                warnings.warn(f"MonitoringHub: {name} has no effect", DeprecationWarning, stacklevel=2)
