"""`parsl.executors.ipp`, of older versions."""

from mpitask.compat.parsl._gone import HTEX, gone

IPyParallelExecutor = gone("IPyParallelExecutor", HTEX)
