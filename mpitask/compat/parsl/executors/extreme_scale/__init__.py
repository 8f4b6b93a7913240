"""`parsl.executors.extreme_scale`, of older versions."""

from mpitask.compat.parsl.executors.extreme_scale.executor import ExtremeScaleExecutor

__all__ = ["ExtremeScaleExecutor"]
