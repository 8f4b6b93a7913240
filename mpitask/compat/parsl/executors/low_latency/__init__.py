"""`parsl.executors.low_latency`, of older versions."""

from mpitask.compat.parsl.executors.low_latency.executor import LowLatencyExecutor

__all__ = ["LowLatencyExecutor"]
