"""`parsl.monitoring`: accepted in configurations."""

from mpitask.compat.aliases import lazy_submodules
from mpitask.compat.parsl.monitoring.monitoring import MonitoringHub

__all__ = ["MonitoringHub"]

__getattr__ = lazy_submodules(__name__)
