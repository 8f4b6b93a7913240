"""mpitask: futures and dependency graphs, from one laptop to thousands of MPI nodes.

    from mpitask import load, python_app

    @python_app
    def double(x): return 2 * x

    with load():
        print(double(double(1)).result())  # 4

Everything public is named here; what is heavy is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mpitask._version import __version__

if TYPE_CHECKING:
    from mpitask.apps import bash_app, join_app, python_app
    from mpitask.bulk.maps import MapFuture, map  # noqa: A004 - the name that everybody knows
    from mpitask.config import Config
    from mpitask.dataflow import AUTO_LOGNAME
    from mpitask.engine import Engine, load
    from mpitask.errors import (
        AppBadFormatting,
        AppError,
        AppTimeout,
        BadStdStreamFile,
        BashAppNoReturn,
        BashExitFailure,
        ConfigurationError,
        DependencyError,
        EngineClosedError,
        InternalError,
        JoinError,
        MissingOutputs,
        MpitaskError,
        NoEngineError,
        SerializationError,
        TaskError,
        TaskExit,
        WorkerLost,
    )
    from mpitask.executor import Executor
    from mpitask.files import File
    from mpitask.futures import DataFuture, Future
    from mpitask.logs import set_file_logger, set_stream_logger
    from mpitask.memo import BasicMemoizer
    from mpitask.running import current, share
    from mpitask.shared import Shared

_HOMES = {
    "bash_app": "mpitask.apps",
    "join_app": "mpitask.apps",
    "python_app": "mpitask.apps",
    "AUTO_LOGNAME": "mpitask.dataflow",
    "File": "mpitask.files",
    "DataFuture": "mpitask.futures",
    "set_file_logger": "mpitask.logs",
    "set_stream_logger": "mpitask.logs",
    "BasicMemoizer": "mpitask.memo",
    "MapFuture": "mpitask.bulk.maps",
    "map": "mpitask.bulk.maps",
    "Config": "mpitask.config",
    "Engine": "mpitask.engine",
    "current": "mpitask.running",
    "load": "mpitask.engine",
    "share": "mpitask.running",
    "Shared": "mpitask.shared",
    "Executor": "mpitask.executor",
    "Future": "mpitask.futures",
    "ConfigurationError": "mpitask.errors",
    "AppBadFormatting": "mpitask.errors",
    "AppError": "mpitask.errors",
    "AppTimeout": "mpitask.errors",
    "BadStdStreamFile": "mpitask.errors",
    "BashAppNoReturn": "mpitask.errors",
    "BashExitFailure": "mpitask.errors",
    "JoinError": "mpitask.errors",
    "MissingOutputs": "mpitask.errors",
    "DependencyError": "mpitask.errors",
    "EngineClosedError": "mpitask.errors",
    "InternalError": "mpitask.errors",
    "MpitaskError": "mpitask.errors",
    "NoEngineError": "mpitask.errors",
    "SerializationError": "mpitask.errors",
    "TaskError": "mpitask.errors",
    "TaskExit": "mpitask.errors",
    "WorkerLost": "mpitask.errors",
}

__all__ = [
    "AUTO_LOGNAME",
    "AppBadFormatting",
    "AppError",
    "AppTimeout",
    "BadStdStreamFile",
    "BashAppNoReturn",
    "BashExitFailure",
    "BasicMemoizer",
    "Config",
    "ConfigurationError",
    "DataFuture",
    "DependencyError",
    "Engine",
    "EngineClosedError",
    "Executor",
    "File",
    "Future",
    "InternalError",
    "JoinError",
    "MapFuture",
    "MissingOutputs",
    "MpitaskError",
    "NoEngineError",
    "SerializationError",
    "Shared",
    "TaskError",
    "TaskExit",
    "WorkerLost",
    "__version__",
    "bash_app",
    "current",
    "join_app",
    "load",
    "map",
    "python_app",
    "set_file_logger",
    "set_stream_logger",
    "share",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mpitask' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
