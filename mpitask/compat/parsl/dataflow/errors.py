"""The exceptions of the data flow: mpitask's own.

`PropagatedException` and `DataFlowException` are the nearest common roots there; they catch more than they have to.
"""

from mpitask.errors import DependencyError, JoinError
from mpitask.errors import MpitaskError as DataFlowException
from mpitask.errors import MpitaskError as ParslError
from mpitask.errors import TaskError as PropagatedException
from mpitask.memo import BadCheckpoint

__all__ = ["BadCheckpoint", "DataFlowException", "DependencyError", "JoinError", "ParslError", "PropagatedException"]
