"""`parsl.data_provider.files`."""

from mpitask.files import File

__all__ = ["File"]
