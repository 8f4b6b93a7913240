"""Files of every kind that fsspec knows, in and out: s3, gs, abfs, sftp, hdfs, memory and more.

fsspec is an optional extra, and each kind of storage needs its own package besides (s3fs, gcsfs, ...), on every node
that runs tasks. Credentials and end points come from where these packages look for them: their environment variables,
files, and fsspec's own configuration; or from `options`.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from mpitask.errors import ConfigurationError
from mpitask.files import File
from mpitask.staging.base import DataManager, Staging, give_place, make_folder
from mpitask.staging.transfer import ATTEMPTS, PAUSE_S, Failure, check_limits, download, from_os_error, persist, redact

_LEFT_TO_OTHERS = frozenset({"file", "local", "ftp", "http", "https", "zip", "globus"})
_USUAL = frozenset(
    {"abfs", "abfss", "adl", "az", "gcs", "gs", "hdfs", "memory", "oci", "s3", "s3a", "sftp", "smb", "ssh", "webhdfs"}
)
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_LOCAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG})


def load_fsspec() -> Any:
    """The module fsspec.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("fsspec")
    except ImportError as error:
        raise ConfigurationError(
            f"fsspec cannot be imported ({error}): run pip install 'mpitask[fsspec]' in the environment of this process"
        ) from error


def fetch(
    url: str,
    local_path: str,
    *,
    attempts: int = ATTEMPTS,
    pause_s: float = PAUSE_S,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Downloads a file; runs on a worker.

    Args:
        url: what to download.
        local_path: where to; replaced in one step.
        attempts: how often it is tried; the packages behind fsspec may try several times each.
        pause_s: the pause before the second try, in seconds; it doubles each time, up to 30 s.
        options: for fsspec's file system, such as `{"endpoint_url": ...}`.

    Returns:
        `local_path`.

    Raises:
        ConfigurationError: fsspec is not installed, or a limit is out of its range.
        StagingError: it did not succeed; nothing of it is left.
    """
    fsspec = load_fsspec()

    def write(temporary: Path) -> None:
        try:
            system, path = fsspec.core.url_to_fs(url, **dict(options or {}))
            system.invalidate_cache()
            info = system.info(path)
            if info.get("type") == "directory":
                raise IsADirectoryError(errno.EISDIR, "this is a folder", path)
            system.get_file(path, str(temporary))
        except Exception as error:
            raise _failure(error) from error
        announced_bytes, received_bytes = info.get("size"), temporary.stat().st_size
        if announced_bytes is not None and received_bytes < announced_bytes:
            raise Failure(f"{received_bytes} of {announced_bytes} bytes came", "see to the server", transient=True)

    return download(url, local_path, write, attempts=attempts, pause_s=pause_s)


def put(
    local_path: str,
    url: str,
    *,
    attempts: int = ATTEMPTS,
    pause_s: float = PAUSE_S,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Uploads a file; runs on a worker. Whether others can see a part of it meanwhile depends on the kind of storage.

    Args:
        local_path: the file.
        url: where to; an older file there is replaced.
        attempts: as for `fetch`.
        pause_s: as for `fetch`.
        options: as for `fetch`.

    Returns:
        The URL.

    Raises:
        ConfigurationError: fsspec is not installed, or a limit is out of its range.
        StagingError: it did not succeed.
    """
    fsspec = load_fsspec()

    def send() -> None:
        if not Path(local_path).is_file():
            raise Failure(f"the task has not written {local_path}", "let it write to the path of its output File")
        try:
            system, path = fsspec.core.url_to_fs(url, **dict(options or {}))
            system.put_file(local_path, path)
        except Exception as error:
            raise _failure(error) from error

    persist(url, send, attempts=attempts, pause_s=pause_s)
    return url


def _failure(error: Exception) -> Failure:
    """What a backend's exception means. Those that are neither the system's nor Python's own may be transient."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError):
        return Failure(text, "install that package on the nodes that run tasks")
    if isinstance(error, _PERMANENT):
        return Failure(text, "see whether the URL is right, and the credentials allow it")
    if isinstance(error, OSError):
        return from_os_error(error) if error.errno in _LOCAL else Failure(text, "try again later", transient=True)
    own = type(error).__module__ == "builtins"
    return Failure(text, "see to the URL, the options and the credentials", transient=not own)


class FsspecStaging(Staging):
    """Moves files by fsspec, each by a task of its own, to and from a folder that all nodes share.

    Args:
        schemes: what it moves; None: all that fsspec knows and no other provider is for.
        attempts: how often a transfer is tried.
        options: for the file systems, by scheme: `{"s3": {"endpoint_url": ...}}`.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    def __init__(
        self,
        schemes: Collection[str] | None = None,
        *,
        attempts: int = ATTEMPTS,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        check_limits(attempts, PAUSE_S)
        if isinstance(schemes, str):
            raise ConfigurationError(f"schemes={schemes!r}: give a list, such as [{schemes!r}]")
        self._schemes = None if schemes is None else frozenset(schemes)
        self._transfers = {  # one function object per scheme, not per file: engines send each once
            scheme: (partial(fetch, attempts=attempts, options=given), partial(put, attempts=attempts, options=given))
            for scheme, given in {"": {}, **(options or {})}.items()
        }

    def can_stage_in(self, file: File) -> bool:
        """True for the schemes of this provider."""
        if self._schemes is not None:
            return file.scheme in self._schemes
        if file.scheme in _LEFT_TO_OTHERS:
            return False
        if importlib.util.find_spec("fsspec") is None:
            return file.scheme in _USUAL  # staging then says what to install
        return file.scheme in load_fsspec().available_protocols()

    def can_stage_out(self, file: File) -> bool:
        """True for the schemes of this provider."""
        return self.can_stage_in(file)

    def stage_in(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        parent_fut: Future[Any] | None,
    ) -> Future[Any]:
        """Submits the download.

        Raises:
            ConfigurationError: fsspec is not installed.
            StagingError: the URL names a folder.
        """
        load_fsspec()
        fetch_it, _ = self._transfers.get(file.scheme, self._transfers[""])
        return dm.submit(
            fetch_it, file.url, give_place(dm, file), label=f"stage in {redact(file.url)}", after=parent_fut
        )

    def stage_out(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        app_fu: Future[Any],
    ) -> Future[Any]:
        """Submits the upload, to be run after the task.

        Raises:
            ConfigurationError: fsspec is not installed.
            StagingError: the URL names a folder.
        """
        load_fsspec()
        _, put_it = self._transfers.get(file.scheme, self._transfers[""])
        local_path = give_place(dm, file)
        make_folder(local_path)
        return dm.submit(put_it, local_path, file.url, label=f"stage out {redact(file.url)}", after=app_fu)

    def __repr__(self) -> str:
        return f"FsspecStaging({'' if self._schemes is None else sorted(self._schemes)})"
