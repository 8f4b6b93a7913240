"""`parsl.executors.base`: the interface of executors, for a site's own ones too."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, Self


class ParslExecutor(abc.ABC):
    """What runs tasks. One that a script brings along runs them as it likes: `submit` is called in this process.

    Attributes:
        label: its name; a configuration has each only once.
        storage_access: staging providers of its tasks; None: the default ones.
        working_dir: the folder into which files are brought; None: one in the run directory.
    """

    label: str = "undefined"
    storage_access: Any = None
    working_dir: Any = None

    def __init__(self, *, monitoring_messages: Any = None, run_dir: str = ".", run_id: str | None = None) -> None:
        self.monitoring_messages = monitoring_messages
        self.remote_monitoring_radio: Any = None
        self.run_dir = os.path.abspath(run_dir)  # noqa: PTH100 - a string, as scripts expect it
        self.run_id = run_id
        self.log_config: Any = None

    def start(self) -> None:  # noqa: B027 - may be left out
        """Called once, before the first task; `run_dir` and `run_id` are those of the kernel."""

    @abc.abstractmethod
    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Runs `func(*args, **kwargs)`; futures in the arguments have been replaced by their values."""

    @abc.abstractmethod
    def shutdown(self) -> None:
        """Called once, after the last task."""

    def monitor_resources(self) -> bool:
        """Whether what its tasks use could be watched."""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self.shutdown()
        return False
