"""The exceptions of apps: mpitask's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any

from mpitask.codec import decode_exception, encode_exception
from mpitask.errors import (
    AppBadFormatting,
    AppTimeout,
    BadStdStreamFile,
    BashAppNoReturn,
    BashExitFailure,
    MissingOutputs,
)
from mpitask.errors import AppError as AppException
from mpitask.errors import MpitaskError as ParslError

__all__ = [
    "AppBadFormatting",
    "AppException",
    "AppTimeout",
    "BadStdStreamFile",
    "BashAppNoReturn",
    "BashExitFailure",
    "MissingOutputs",
    "ParslError",
    "RemoteExceptionWrapper",
    "wrap_error",
]


class RemoteExceptionWrapper:
    """An exception as a result, as executors hand it back. In a pickle, the traceback becomes text."""

    def __init__(self, e_type: type, e_value: BaseException, traceback: TracebackType | None) -> None:
        self.e_type = e_type
        self.e_value = e_value.with_traceback(traceback)

    def get_exception(self) -> BaseException:
        """The exception."""
        return self.e_value

    def reraise(self) -> None:
        """Raises the exception."""
        raise self.e_value

    def __getstate__(self) -> bytes:
        return encode_exception(self.e_value, skip_frames=0)

    def __setstate__(self, state: bytes) -> None:
        self.e_value = decode_exception(state)
        self.e_type = type(self.e_value)


class _Wrapped:
    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._fn(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - it is the result
            return RemoteExceptionWrapper(type(error), error, error.__traceback__)


def wrap_error(func: Callable[..., Any]) -> Callable[..., Any]:
    """The function, returning its exceptions as `RemoteExceptionWrapper`s."""
    return _Wrapped(func)
