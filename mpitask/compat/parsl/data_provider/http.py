"""`parsl.data_provider.http`."""

from mpitask.staging import HTTPInTaskStaging, HTTPSeparateTaskStaging

__all__ = ["HTTPInTaskStaging", "HTTPSeparateTaskStaging"]
