"""`parsl.dataflow.futures`."""

from mpitask.dataflow import AppFuture

__all__ = ["AppFuture"]
