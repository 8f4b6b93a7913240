"""`parsl.logconfigs.noop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mpitask.compat.parsl.logconfigs.base import LogConfig


class NoopLogging(LogConfig):
    """Nothing is kept."""

    def initialize_logging(self, *, log_dir: Path, log_name: str) -> Callable[[], None]:  # noqa: ARG002
        """Nothing to begin."""
        return lambda: None
