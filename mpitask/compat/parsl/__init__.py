"""The package `parsl`, on mpitask: scripts that are written for Parsl run unchanged.

`python -m mpitask --parsl script.py`, or `import mpitask.compat.parsl; mpitask.compat.parsl.install()` before the first
`import parsl`. From then on `parsl` and its modules are those of this package, in this process and on its workers.
Names and promises are Parsl's; what runs the tasks is one mpitask engine, and the classes behind the names are
mpitask's own wherever it has them, so that both faces can be used in one program.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from mpitask.compat import aliases
from mpitask.compat.parsl import _pinning
from mpitask.environment import usable_cores
from mpitask.worker.zygote import COMPAT_VARIABLE

if TYPE_CHECKING:
    from mpitask.compat.parsl.app.app import bash_app, join_app, python_app
    from mpitask.compat.parsl.config import Config
    from mpitask.compat.parsl.data_provider.files import File
    from mpitask.compat.parsl.dataflow.dflow import (
        DataFlowKernel,
        DataFlowKernelLoader,
        clear,
        dfk,
        load,
        wait_for_current_tasks,
    )
    from mpitask.compat.parsl.executors import HighThroughputExecutor, ThreadPoolExecutor, WorkQueueExecutor
    from mpitask.compat.parsl.executors.radical import RadicalPilotExecutor
    from mpitask.compat.parsl.log_utils import set_file_logger, set_stream_logger
    from mpitask.compat.parsl.monitoring import MonitoringHub

    __version__: str

AUTO_LOGNAME = -1
"""As `stdout=` or `stderr=`: a file in the run directory, named after the task."""

_HOMES = {
    "Config": "config",
    "DataFlowKernel": "dataflow.dflow",
    "DataFlowKernelLoader": "dataflow.dflow",
    "File": "data_provider.files",
    "HighThroughputExecutor": "executors",
    "MonitoringHub": "monitoring",
    "RadicalPilotExecutor": "executors.radical",
    "ThreadPoolExecutor": "executors",
    "WorkQueueExecutor": "executors",
    "bash_app": "app.app",
    "clear": "dataflow.dflow",
    "dfk": "dataflow.dflow",
    "join_app": "app.app",
    "load": "dataflow.dflow",
    "python_app": "app.app",
    "set_file_logger": "log_utils",
    "set_stream_logger": "log_utils",
    "wait_for_current_tasks": "dataflow.dflow",
}

__all__ = [
    "AUTO_LOGNAME",
    "Config",
    "DataFlowKernel",
    "DataFlowKernelLoader",
    "File",
    "HighThroughputExecutor",
    "MonitoringHub",
    "RadicalPilotExecutor",
    "ThreadPoolExecutor",
    "WorkQueueExecutor",
    "__version__",
    "bash_app",
    "clear",
    "dfk",
    "join_app",
    "load",
    "python_app",
    "set_file_logger",
    "set_stream_logger",
    "wait_for_current_tasks",
]

_submodule = aliases.lazy_submodules(__name__)

logging.getLogger("parsl").addHandler(logging.NullHandler())


def install(workers: int | None = None) -> None:
    """Makes `import parsl` mean this package, here and on workers that start from now on. May be called again.

    Args:
        workers: what tasks shall find as PARSL_WORKER_COUNT; None: the number of cores.

    Raises:
        ConfigurationError: another `parsl` has been imported already.
    """
    aliases.install(__name__, "parsl")
    os.environ[COMPAT_VARIABLE] = __name__
    if workers is not None:
        os.environ["PARSL_WORKER_COUNT"] = str(workers)


def in_worker(index: int) -> None:
    """In a new worker process: what tasks may look for in the environment."""
    os.environ["PARSL_WORKER_RANK"] = str(index)
    os.environ["PARSL_WORKER_POOL_ID"] = f"{socket.gethostname()}-{os.getppid()}"
    os.environ["PARSL_WORKER_BLOCK_ID"] = "0"
    os.environ.setdefault("PARSL_WORKER_COUNT", str(usable_cores()))
    _pinning.pin(index)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = importlib.import_module(f"{__name__}.version").VERSION
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        return _submodule(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
