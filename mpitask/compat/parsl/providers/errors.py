"""`parsl.providers.errors`. mpitask raises none of them; scripts name them."""

from __future__ import annotations

import warnings
from typing import Any

from mpitask.errors import MpitaskError


class ExecutionProviderException(MpitaskError):  # noqa: N818 - the field's name for it
    """Something is wrong with a provider."""


class ScaleOutFailed(ExecutionProviderException):
    """A block cannot be started."""

    def __init__(self, provider: Any, reason: str) -> None:
        super().__init__(provider, reason)
        self.provider = provider
        self.reason = reason


class SchedulerMissingArgs(ExecutionProviderException):
    """A provider lacks options."""

    def __init__(self, missing_keywords: Any, sitename: str) -> None:
        super().__init__(missing_keywords, sitename)
        self.missing_keywords = missing_keywords
        self.sitename = sitename


class ScriptPathError(ExecutionProviderException):
    """A submit script cannot be written."""

    def __init__(self, script_path: str, reason: str) -> None:
        super().__init__(script_path, reason)
        self.script_path = script_path
        self.reason = reason


class SubmitException(ExecutionProviderException):
    """A job cannot be submitted."""

    def __init__(
        self,
        job_name: str,
        message: str,
        stdout: str | None = None,
        stderr: str | None = None,
        retcode: int | None = None,
    ) -> None:
        super().__init__(job_name, message, stdout, stderr, retcode)
        self.job_name = job_name
        self.message = message
        self.stdout = stdout
        self.stderr = stderr
        self.retcode = retcode

    @property
    def task_name(self) -> str:
        """The old name of `job_name`."""
        warnings.warn("SubmitException.task_name is now job_name", DeprecationWarning, stacklevel=2)
        return self.job_name
