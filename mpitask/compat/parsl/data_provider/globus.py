"""`parsl.data_provider.globus`."""

from mpitask.staging import GlobusStaging

__all__ = ["GlobusStaging"]
