"""`parsl.executors.taskvine.errors`. mpitask raises none of them; scripts name them."""

from mpitask.errors import AppError, MpitaskError


class TaskVineTaskFailure(AppError):  # noqa: N818 - the field's name for it
    """A task failed."""


class TaskVineManagerFailure(MpitaskError):  # noqa: N818 - the field's name for it
    """The executor failed."""


class TaskVineFactoryFailure(MpitaskError):  # noqa: N818 - the field's name for it
    """The executor failed."""
