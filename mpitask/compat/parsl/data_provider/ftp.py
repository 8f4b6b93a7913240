"""`parsl.data_provider.ftp`."""

from mpitask.staging import FTPInTaskStaging, FTPSeparateTaskStaging

__all__ = ["FTPInTaskStaging", "FTPSeparateTaskStaging"]
