"""`parsl.dataflow.taskrecord`."""

from mpitask.dataflow import TaskRecord

__all__ = ["TaskRecord"]
