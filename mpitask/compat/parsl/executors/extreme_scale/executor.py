"""`parsl.executors.extreme_scale.executor`, of older versions."""

from mpitask.compat.parsl._gone import HTEX, gone

ExtremeScaleExecutor = gone("ExtremeScaleExecutor", HTEX)
