"""`parsl.serialize.facade`: objects as bytes. mpitask's tasks do not pass through here."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle

from mpitask.compat.parsl.serialize.base import SerializerBase
from mpitask.errors import SerializationError

__all__ = [
    "deserialize",
    "pack_apply_message",
    "register_method_for_code",
    "register_method_for_data",
    "serialize",
    "unpack_apply_message",
]

_log = logging.getLogger("mpitask")


def serialize(obj: Any, buffer_threshold: int = 0) -> bytes:  # noqa: ARG001
    """The bytes of an object.

    Raises:
        SerializationError: it cannot be pickled.
    """
    try:
        return bytes(cloudpickle.dumps(obj))
    except Exception as error:
        raise SerializationError(f"{type(obj).__qualname__} cannot be pickled: {error}") from error


def deserialize(payload: bytes) -> Any:
    """The object of some bytes.

    Raises:
        SerializationError: they are not what `serialize` gave.
    """
    try:
        return pickle.loads(payload)
    except Exception as error:
        raise SerializationError(f"these bytes cannot be unpickled: {type(error).__name__}: {error}") from error


def pack_apply_message(func: Callable[..., Any], args: Any, kwargs: Any, buffer_threshold: int = 0) -> bytes:
    """The bytes of a call."""
    return serialize((func, args, kwargs), buffer_threshold)


def unpack_apply_message(packed_buffer: bytes) -> tuple[Callable[..., Any], Any, Any]:
    """The function, the arguments and the keyword arguments of a call."""
    func, args, kwargs = deserialize(packed_buffer)
    return func, args, kwargs


def register_method_for_code(s: SerializerBase) -> None:
    """Accepted; has no effect."""
    _log.warning("parsl.serialize: %r has no effect: functions are sent by cloudpickle", s)


def register_method_for_data(s: SerializerBase) -> None:
    """Accepted; has no effect."""
    _log.warning("parsl.serialize: %r has no effect: data are sent by pickle and cloudpickle", s)
