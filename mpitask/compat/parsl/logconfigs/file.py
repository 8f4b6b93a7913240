"""`parsl.logconfigs.file`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from mpitask.compat.parsl.log_utils import DEFAULT_FORMAT, set_file_logger
from mpitask.compat.parsl.logconfigs.base import LogConfig


class FileLogging(LogConfig):
    """Messages go to `<log_dir>/<log_name>.log`."""

    def __init__(self, *, format_string: str = DEFAULT_FORMAT, level: int = logging.DEBUG) -> None:
        self.format_string = format_string
        self.level = level

    def initialize_logging(self, *, log_dir: Path, log_name: str) -> Callable[[], None]:
        """Opens the file."""
        path = Path(log_dir) / f"{log_name}.log"
        return set_file_logger(str(path), level=self.level, format_string=self.format_string)
