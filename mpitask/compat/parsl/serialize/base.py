"""`parsl.serialize.base`."""

from __future__ import annotations

import abc
from typing import Any


class SerializerBase(abc.ABC):
    """Makes bytes of objects, and objects of those bytes."""

    identifier: bytes = b""

    @abc.abstractmethod
    def serialize(self, data: Any) -> bytes:
        """The bytes of an object."""

    @abc.abstractmethod
    def deserialize(self, payload: bytes) -> Any:
        """The object of some bytes."""
