"""`parsl.launchers.errors`."""

from __future__ import annotations

from mpitask.errors import MpitaskError


class BadLauncher(MpitaskError, TypeError):  # noqa: N818 - the field's name for it
    """What was given as a launcher is none."""

    def __init__(self, launcher: object) -> None:
        super().__init__(launcher)
        self.launcher = launcher

    def __str__(self) -> str:
        return f"{self.launcher!r} is no launcher: give one of parsl.launchers"
