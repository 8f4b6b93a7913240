"""`parsl.data_provider.file_noop`."""

from mpitask.staging import NoOpFileStaging

__all__ = ["NoOpFileStaging"]
