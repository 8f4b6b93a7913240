"""Where mpitask's log goes. By itself it writes to the logger "mpitask" and installs no handler.

The log tells of runs and of what went wrong, not of single tasks; at level DEBUG it tells of those that the root looks
after itself, with the attributes `task`, `task_state` and `app`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from mpitask.private import make_directories, opener

FORMAT = "%(asctime)s %(name)s:%(lineno)d %(process)d %(threadName)s [%(levelname)s] %(message)s"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object in each line: time (UTC), level, logger, process, thread, message, and what came as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=repr)


class PrivateFileHandler(logging.FileHandler):
    """Makes its file for the owner alone: arguments and paths may stand in it."""

    def _open(self) -> TextIOWrapper:
        file = open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=opener)  # noqa: SIM115
        assert isinstance(file, TextIOWrapper)
        return file


def set_stream_logger(
    name: str = "mpitask",
    level: int = logging.DEBUG,
    format_string: str | None = None,
    stream: TextIO | None = None,
) -> Callable[[], None]:
    """Writes the log to a stream (standard error if none is given) from now on; the returned function ends that."""
    return _install(logging.StreamHandler(stream), name, level, logging.Formatter(format_string or FORMAT))


def set_file_logger(
    filename: str | os.PathLike[str],
    name: str = "mpitask",
    level: int = logging.DEBUG,
    format_string: str | None = None,
    *,
    as_json: bool = False,
) -> Callable[[], None]:
    """Appends the log to a file from now on; the returned function ends that.

    The file, and directories of it that are missing, are made for their owner alone.

    Args:
        filename: the file.
        name: the logger.
        level: what is less important is left out.
        format_string: as the standard library's Formatter takes it.
        as_json: one JSON object in each line instead.

    Raises:
        OSError: the file cannot be opened.
    """
    path = Path(filename)
    make_directories(path.parent)
    formatter = JsonFormatter() if as_json else logging.Formatter(format_string or FORMAT)
    return _install(PrivateFileHandler(path), name, level, formatter)


def _install(handler: logging.Handler, name: str, level: int, formatter: logging.Formatter) -> Callable[[], None]:
    logger = logging.getLogger(name)
    handler.setLevel(level)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    before = logger.level
    if logger.level == logging.NOTSET or logger.level > level:
        logger.setLevel(level)

    def end() -> None:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before)

    return end
