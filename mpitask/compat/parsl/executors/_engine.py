"""Executors whose tasks the mpitask engine runs: all that are made for clusters."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar

from mpitask.compat.parsl.executors.errors import InvalidResourceSpecification
from mpitask.compat.parsl.executors.status_handling import BlockProviderExecutor
from mpitask.compat.parsl.utils import RepresentationMixin
from mpitask.compat.parsl.version import VERSION
from mpitask.errors import EngineClosedError

if TYPE_CHECKING:
    from mpitask.engine import Engine

_ALWAYS_MEANT = frozenset({"label", "storage_access", "working_dir", "provider"})


class EngineExecutor(RepresentationMixin, BlockProviderExecutor):
    """Runs tasks on the workers of the engine.

    Attributes:
        meant: the constructor's options that have an effect here, beside those that all executors share.
        resource_keys: what a resource specification may hold.
    """

    meant: ClassVar[frozenset[str]] = frozenset()
    resource_keys: ClassVar[frozenset[str]] = frozenset()
    engine: Engine | None = None

    def options_with_effect(self) -> frozenset[str]:
        """Names of the constructor's options that mean something here."""
        return self.meant | _ALWAYS_MEANT

    def wanted_workers(self, cores: int) -> int:
        """Worker processes on a machine with so many cores."""
        return cores

    def worker_environment(self) -> dict[str, str]:
        """Environment variables for workers that serve no other executor."""
        return {}

    def worker_limit(self) -> int | None:
        """How many tasks may run at a time, where the configuration says so by a number."""
        return None

    @property
    def runs_calls_as_they_are(self) -> bool:
        """Whether a call without a resource specification is simply the engine's."""
        try:
            self.validate_resource_spec({})
        except Exception:  # noqa: BLE001 - its calls say so
            return False
        return type(self).prepare is EngineExecutor.prepare

    def validate_resource_spec(self, resource_specification: Mapping[str, Any]) -> None:
        """Checks a call's resource specification.

        Raises:
            InvalidResourceSpecification: it holds what this executor does not take.
        """
        wrong = set(resource_specification) - self.resource_keys
        if wrong:
            known = ", ".join(sorted(self.resource_keys)) or "nothing"
            raise InvalidResourceSpecification(wrong, f"{type(self).__name__} takes {known}")

    def prepare(self, callee: Callable[..., Any], resource_specification: Mapping[str, Any]) -> Callable[..., Any]:  # noqa: ARG002
        """What workers call, for a call with this specification."""
        return callee

    # -- as executors of their own --

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Runs a call on the engine, beside those of the kernel."""
        self.validate_resource_spec(resource_specification)
        engine = self._running()
        callee = self.prepare(func, resource_specification)
        return engine.call(engine.function_id(callee), args, kwargs)

    def shutdown(self, *_: Any, **__: Any) -> None:
        """Nothing: the engine ends with the kernel."""

    def _running(self) -> Engine:
        if self.engine is None:
            raise EngineClosedError(f"executor {self.label!r} runs no tasks: no kernel has started it")
        return self.engine

    def outstanding(self) -> int:
        """Tasks of the engine that have not ended."""
        return 0 if self.engine is None else self.engine.unfinished

    def connected_managers(self) -> list[dict[str, Any]]:
        """One entry, for the engine as a whole."""
        if self.engine is None:
            return []
        return [
            {
                "manager": f"mpitask-{os.getpid()}",
                "block_id": "0",
                "worker_count": self.engine.max_workers,
                "tasks": self.engine.unfinished,
                "idle_duration": 0.0,
                "active": True,
                "parsl_version": VERSION,
                "python_version": ".".join(map(str, sys.version_info[:3])),
                "hostname": socket.gethostname(),
                "draining": False,
            }
        ]

    def connected_managers_packages(self) -> dict[str, dict[str, str]]:
        """The packages of this interpreter, for the engine as a whole; name → version."""
        found = {str(known.metadata["Name"]): known.version for known in importlib.metadata.distributions()}
        return {entry["manager"]: found | {"parsl": VERSION} for entry in self.connected_managers()}

    def connected_blocks(self) -> list[str]:
        """One, for the engine as a whole."""
        return [] if self.engine is None else ["0"]

    @property
    def workers_per_node(self) -> int:
        """Workers that run tasks."""
        return 1 if self.engine is None else self.engine.max_workers
