"""`parsl.data_provider.rsync`."""

from mpitask.staging import RSyncStaging

__all__ = ["RSyncStaging"]
