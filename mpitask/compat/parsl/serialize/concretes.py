"""`parsl.serialize.concretes`: by pickle, and by cloudpickle where Parsl has dill."""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle

from mpitask.compat.parsl.serialize.base import SerializerBase


class PickleSerializer(SerializerBase):
    """The standard pickle."""

    identifier = b"01"

    def serialize(self, data: Any) -> bytes:
        """As the base class says."""
        return pickle.dumps(data)

    def deserialize(self, payload: bytes) -> Any:
        """As the base class says."""
        return pickle.loads(payload)


class DillSerializer(PickleSerializer):
    """cloudpickle."""

    identifier = b"02"

    def serialize(self, data: Any) -> bytes:
        """As the base class says."""
        return bytes(cloudpickle.dumps(data))


class DillCallableSerializer(DillSerializer):
    """cloudpickle."""

    identifier = b"C2"
