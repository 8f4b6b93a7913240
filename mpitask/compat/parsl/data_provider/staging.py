"""`parsl.data_provider.staging`."""

from mpitask.staging import Staging

__all__ = ["Staging"]
