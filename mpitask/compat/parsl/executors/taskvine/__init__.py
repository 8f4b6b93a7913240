"""`parsl.executors.taskvine`."""

from mpitask.compat.aliases import lazy_submodules
from mpitask.compat.parsl.executors.taskvine.executor import TaskVineExecutor
from mpitask.compat.parsl.executors.taskvine.factory_config import TaskVineFactoryConfig
from mpitask.compat.parsl.executors.taskvine.manager_config import TaskVineManagerConfig

__all__ = ["TaskVineExecutor", "TaskVineFactoryConfig", "TaskVineManagerConfig"]

__getattr__ = lazy_submodules(__name__)
