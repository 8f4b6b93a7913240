"""Calls that need more than the core: memoised, joined, staged, retried by a handler, watched by hooks."""

from mpitask.dataflow.kernel import Kernel, kernel_of
from mpitask.dataflow.record import AUTO_LOGNAME, AppFuture, TaskRecord

__all__ = ["AUTO_LOGNAME", "AppFuture", "Kernel", "TaskRecord", "kernel_of"]
