"""`parsl.executors.workqueue.errors`. mpitask raises none of them; scripts name them."""

from mpitask.errors import AppError, MpitaskError


class WorkQueueTaskFailure(AppError):  # noqa: N818 - the field's name for it
    """A task failed."""


class WorkQueueFailure(MpitaskError):  # noqa: N818 - the field's name for it
    """The executor failed."""
