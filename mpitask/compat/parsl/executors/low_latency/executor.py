"""`parsl.executors.low_latency.executor`, of older versions."""

from mpitask.compat.parsl._gone import HTEX, gone

LowLatencyExecutor = gone("LowLatencyExecutor", HTEX)
