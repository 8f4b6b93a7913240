"""`parsl.logconfigs.json`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from mpitask.compat.parsl.log_utils import lower_level
from mpitask.compat.parsl.logconfigs.base import LogConfig

_STANDARD = frozenset(vars(logging.makeLogRecord({})))


class JSONHandler(logging.FileHandler):
    """One JSON object for each message, with what it carries beyond the text."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        shown = {"created": record.created, "logger": record.name, "level": record.levelname}
        shown |= {"msg": record.getMessage(), "process": record.process, "thread": record.threadName}
        if record.exc_info:
            shown["exception"] = logging.Formatter().formatException(record.exc_info)
        shown |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return json.dumps(shown, default=str)


class JSONLogging(LogConfig):
    """Messages go to `<log_dir>/<log_name>.jsonlog`."""

    def __init__(self, *, level: int = logging.DEBUG) -> None:
        self.level = level

    def initialize_logging(self, *, log_dir: Path, log_name: str) -> Callable[[], None]:
        """Opens the file."""
        handler = JSONHandler(Path(log_dir) / f"{log_name}.jsonlog")
        handler.setLevel(self.level)
        logger = logging.getLogger("parsl")
        lower_level(logger, self.level)
        logger.addHandler(handler)

        def end() -> None:
            logger.removeHandler(handler)
            handler.close()

        return end
