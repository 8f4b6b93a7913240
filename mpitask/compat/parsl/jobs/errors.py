"""`parsl.jobs.errors`."""

from mpitask.errors import MpitaskError


class TooManyJobFailuresError(MpitaskError):
    """Batch jobs fail one after the other."""
