"""`parsl.process_loggers`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any


def wrap_with_logs(fn: Callable[..., Any] | None = None, target: str = __name__) -> Any:
    """Logs how calls of the function end, and lets exceptions pass."""
    if fn is None:
        return functools.partial(wrap_with_logs, target=target)

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        log = logging.getLogger(target)
        try:
            value = fn(*args, **kwargs)
        except BaseException:
            log.exception("Exceptional ending of %r", fn)
            raise
        log.debug("Normal ending of %r", fn)
        return value

    return wrapped
