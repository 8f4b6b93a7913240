"""`parsl.executors.radical`."""

from mpitask.compat.aliases import lazy_submodules
from mpitask.compat.parsl.executors.radical.executor import RadicalPilotExecutor
from mpitask.compat.parsl.executors.radical.rpex_resources import ResourceConfig

__all__ = ["RadicalPilotExecutor", "ResourceConfig"]

__getattr__ = lazy_submodules(__name__)
