"""`parsl.executors.high_throughput.errors`: what has been lost, a worker or a node, is mpitask's WorkerLost."""

from __future__ import annotations

from mpitask.errors import ConfigurationError as VersionMismatch
from mpitask.errors import MpitaskError, WorkerLost
from mpitask.errors import WorkerLost as ManagerLost

__all__ = ["CommandClientBadError", "CommandClientTimeoutError", "ManagerLost", "VersionMismatch", "WorkerLost"]


class CommandClientTimeoutError(MpitaskError):
    """Never raised here."""


class CommandClientBadError(MpitaskError):
    """Never raised here."""
