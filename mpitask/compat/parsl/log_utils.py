"""`parsl.log_utils`: where messages go."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mpitask.logs import PrivateFileHandler

DEFAULT_FORMAT = (
    "%(created)f %(asctime)s %(processName)s-%(process)d %(threadName)s %(name)s:%(lineno)d %(levelname)s %(message)s"
)
_STREAM_FORMAT = "%(asctime)s %(name)s:%(lineno)d [%(levelname)s]  %(message)s"


def set_stream_logger(
    name: str = "parsl", level: int = logging.DEBUG, format_string: str | None = None, stream: Any = None
) -> Callable[[], None]:
    """Sends messages of a logger to a stream (standard error). Gives a function that ends this."""
    handler = logging.StreamHandler(stream)
    names = [name, "concurrent.futures", *(["mpitask"] if name == "parsl" else [])]
    return _attach(handler, names, level, format_string or _STREAM_FORMAT)


def set_file_logger(
    filename: str, name: str = "parsl", level: int = logging.DEBUG, format_string: str | None = None
) -> Callable[[], None]:
    """Sends messages of a logger to a file. Gives a function that ends this and closes the file."""
    handler = PrivateFileHandler(filename)
    return _attach(handler, [name], level, format_string or DEFAULT_FORMAT)


def lower_level(logger: logging.Logger, level: int) -> None:
    """Has a logger pass on what handlers of this level want."""
    logger.setLevel(min(level, logger.level or level) or logging.DEBUG)


def heard(logger: logging.Logger, level: int) -> bool:
    """Whether a message would reach a handler: a cheaper question than making one for nobody."""
    if not logger.isEnabledFor(level):
        return False
    place: logging.Logger | None = logger
    while place is not None:
        for handler in place.handlers:
            if handler.level <= level and not isinstance(handler, logging.NullHandler):
                return True
        place = place.parent if place.propagate else None
    return False


def _attach(handler: logging.Handler, names: list[str], level: int, form: str) -> Callable[[], None]:
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter(form, datefmt="%Y-%m-%d %H:%M:%S"))
    lower_level(logging.getLogger(names[0]), level)
    for name in names:
        logging.getLogger(name).addHandler(handler)

    def unregister() -> None:
        for name in names:
            logging.getLogger(name).removeHandler(handler)
        handler.close()

    return unregister
