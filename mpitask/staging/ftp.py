"""Files from FTP servers, in only."""

from __future__ import annotations

import ftplib
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mpitask.files import File
from mpitask.staging.base import FetchStaging, InTask, SeparateTask
from mpitask.staging.transfer import ATTEMPTS, PAUSE_S, TIMEOUT_S, Failure, check_limits, download

_CHUNK_BYTES = 1 << 18


def fetch(
    url: str,
    local_path: str,
    *,
    timeout_s: float = TIMEOUT_S,
    attempts: int = ATTEMPTS,
    pause_s: float = PAUSE_S,
) -> str:
    """Downloads a file in passive, binary mode; runs on a worker.

    The user is `anonymous` unless the URL says `ftp://user:password@host/path`. Tried again after lost connections,
    time-outs, answers 4xx and bodies shorter than the server's SIZE.

    Args:
        url: what to download; its path begins at the server's root.
        local_path: where to; replaced in one step.
        timeout_s: how long the server may be silent, in seconds.
        attempts: how often it is tried.
        pause_s: the pause before the second try, in seconds; it doubles each time, up to 30 s.

    Returns:
        `local_path`.

    Raises:
        StagingError: it did not succeed; nothing of it is left.
        ConfigurationError: a limit is out of its range.
    """
    check_limits(attempts, pause_s, timeout_s)

    def write(temporary: Path) -> None:
        try:
            _retrieve(url, temporary, timeout_s)
        except (ftplib.error_temp, EOFError) as error:
            raise Failure(f"the server broke off: {error!r}", "try again later", transient=True) from error
        except ftplib.error_perm as error:
            raise Failure(f"the server answered {error}", "see whether path, user and password are right") from error
        except ftplib.Error as error:
            raise Failure(f"the server does not speak FTP: {error}", "see whether host and port are right") from error
        except ValueError as error:
            raise Failure(f"this is not a URL: {error}", "correct it") from error

    return download(url, local_path, write, attempts=attempts, pause_s=pause_s)


def _retrieve(url: str, temporary: Path, timeout_s: float) -> None:
    parts = urlsplit(url)
    path = unquote(File(url).path)
    with ftplib.FTP(timeout=timeout_s) as ftp:
        ftp.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        ftp.login(unquote(parts.username or "anonymous"), unquote(parts.password or "mpitask@"))
        ftp.voidcmd("TYPE I")  # many servers know sizes in binary mode only
        try:
            announced_bytes = ftp.size(path)
        except ftplib.error_perm:  # no such command, or no such file: RETR will tell
            announced_bytes = None
        with temporary.open("xb") as out:
            ftp.retrbinary(f"RETR {path}", out.write, _CHUNK_BYTES)
            received_bytes = out.tell()
    if announced_bytes is not None and received_bytes < announced_bytes:
        raise Failure(
            f"the server sent {received_bytes} of {announced_bytes} bytes", "see to the server", transient=True
        )


class _FTPStaging(FetchStaging):
    def __init__(self, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS) -> None:
        check_limits(attempts, PAUSE_S, timeout_s)
        super().__init__({"ftp"}, partial(fetch, timeout_s=timeout_s, attempts=attempts))


class FTPSeparateTaskStaging(SeparateTask, _FTPStaging):
    """Downloads from FTP servers, each by a task of its own, into a folder that all nodes share.

    Args:
        timeout_s: how long the server may be silent, in seconds.
        attempts: how often a download is tried.

    Raises:
        ConfigurationError: a value is out of its range.
    """


class FTPInTaskStaging(InTask, _FTPStaging):
    """Downloads from FTP servers inside the task that needs the file: nodes need not share a folder.

    Takes what `FTPSeparateTaskStaging` takes.
    """
