"""`parsl.executors`. Threads are the script's own; what is made for clusters becomes mpitask's engine."""

from mpitask.compat.aliases import lazy_submodules
from mpitask.compat.parsl.executors.flux.executor import FluxExecutor
from mpitask.compat.parsl.executors.globus_compute import GlobusComputeExecutor
from mpitask.compat.parsl.executors.high_throughput.executor import HighThroughputExecutor
from mpitask.compat.parsl.executors.high_throughput.mpi_executor import MPIExecutor
from mpitask.compat.parsl.executors.taskvine.executor import TaskVineExecutor
from mpitask.compat.parsl.executors.threads import ThreadPoolExecutor
from mpitask.compat.parsl.executors.workqueue.executor import WorkQueueExecutor

__all__ = [
    "FluxExecutor",
    "GlobusComputeExecutor",
    "HighThroughputExecutor",
    "MPIExecutor",
    "TaskVineExecutor",
    "ThreadPoolExecutor",
    "WorkQueueExecutor",
]

_OLD = {
    "ExtremeScaleExecutor": "extreme_scale.executor",
    "IPyParallelExecutor": "ipp",
    "LowLatencyExecutor": "low_latency.executor",
}

__getattr__ = lazy_submodules(__name__, _OLD)
