"""`parsl.app.futures`."""

from mpitask.futures import DataFuture

__all__ = ["DataFuture"]
