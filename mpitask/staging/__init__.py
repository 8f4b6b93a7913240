"""Bringing files to the tasks that need them, and the files that tasks make to where they shall be.

A `Staging` provider says which files it is for and how they are moved; `choose` asks a list of them in order. Write one
of your own by deriving from `Staging`. What moves the files are plain functions (`http.fetch`, `zipped.insert`, ...)
that run on the workers.
"""

from __future__ import annotations

from mpitask.staging.base import DataManager, NoOpFileStaging, Staging, choose
from mpitask.staging.errors import StagingError, ZipAuthorityError
from mpitask.staging.fsspec_ import FsspecStaging
from mpitask.staging.ftp import FTPInTaskStaging, FTPSeparateTaskStaging
from mpitask.staging.globus import GlobusStaging
from mpitask.staging.http import HTTPInTaskStaging, HTTPSeparateTaskStaging
from mpitask.staging.rsync import RSyncStaging
from mpitask.staging.zipped import ZipFileStaging

__all__ = [
    "DEFAULT_STAGING",
    "DataManager",
    "FTPInTaskStaging",
    "FTPSeparateTaskStaging",
    "FsspecStaging",
    "GlobusStaging",
    "HTTPInTaskStaging",
    "HTTPSeparateTaskStaging",
    "NoOpFileStaging",
    "RSyncStaging",
    "Staging",
    "StagingError",
    "ZipAuthorityError",
    "ZipFileStaging",
    "choose",
]

DEFAULT_STAGING: list[Staging] = [
    NoOpFileStaging(),
    FTPSeparateTaskStaging(),
    HTTPSeparateTaskStaging(),
    ZipFileStaging(),
    FsspecStaging(),
]
"""The providers where none are configured, in the order in which they are asked."""
