"""The exceptions of serialisation: mpitask's own."""

from mpitask.errors import SerializationError
from mpitask.errors import SerializationError as DeserializationError
from mpitask.errors import SerializationError as DeserializerPluginError

__all__ = ["DeserializationError", "DeserializerPluginError", "SerializationError"]
