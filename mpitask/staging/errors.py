"""The exceptions of staging.

MpitaskError
└── StagingError              a file could not be brought in or out
    └── ZipAuthorityError     a zip: URL has a host
"""

from __future__ import annotations

from mpitask.errors import MpitaskError


class StagingError(MpitaskError):
    """A file could not be brought in or out.

    Attributes:
        url: what was to be staged; a password in it is replaced by stars.
        cause: what went wrong.
        remedy: what can be done about it.
    """

    def __init__(self, url: str, cause: str, remedy: str) -> None:
        super().__init__(url, cause, remedy)
        self.url = url
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"staging {self.url} failed: {self.cause}; {self.remedy}"


class ZipAuthorityError(StagingError):
    """A zip: URL has a host; archives are local files."""
