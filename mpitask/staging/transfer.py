"""What all transfers share: trying again, files that appear whole or not at all, and one download for many.

A transfer reports a problem as a `Failure`, which says whether another try can help; only `persist` turns the last one
into a `StagingError`. A download writes into a temporary file in the folder of its target, which is then renamed. While
it runs, it holds a lock file in the same folder; whoever asks for the same URL in the same place meanwhile waits for it
and uses its result. Both names begin with a dot, and both files are gone at the end; a process that is killed leaves
them to the next download of the same target, which clears them away.

All functions may be called from any thread and process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mpitask.errors import ConfigurationError
from mpitask.staging.errors import StagingError
from mpitask.staging.locks import LockFile, LocksMissing

T = TypeVar("T")

TIMEOUT_S = 60.0
ATTEMPTS = 5
PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

_LONGEST_NAME_BYTES = 200  # file systems allow 255; ours get a prefix and a suffix
_TRANSIENT = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_CREDENTIALS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://[^/?#@:]*):[^/?#]*@")


class Failure(Exception):  # noqa: N818 - how transfers speak to `persist`; users never see it
    """One try has failed.

    Args:
        cause: what went wrong.
        remedy: what can be done about it.
        transient: another try may succeed.
        wait_s: the other side asks for a pause of this length.
    """

    def __init__(self, cause: str, remedy: str, *, transient: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy
        self.transient = transient
        self.wait_s = wait_s


def redact(url: str) -> str:
    """The URL without the password that it may hold: what may be printed."""
    return _CREDENTIALS.sub(r"\1:***@", url)


def check_limits(attempts: int, pause_s: float, timeout_s: float = 1.0) -> None:
    """Checks what users give for trying again.

    Raises:
        ConfigurationError: a value is out of its range.
    """
    if attempts < 1:
        raise ConfigurationError(f"attempts={attempts!r}: give a number, 1 or more")
    if pause_s < 0:
        raise ConfigurationError(f"pause_s={pause_s!r}: give a number of seconds, 0 or more")
    if timeout_s <= 0:
        raise ConfigurationError(f"timeout_s={timeout_s!r}: give a number of seconds above 0")


def check_most(name: str, value: float | None) -> None:
    """Checks an upper limit that users give, or leave out.

    Raises:
        ConfigurationError: it is no number above 0.
    """
    if value is not None and not value > 0:
        raise ConfigurationError(f"{name}={value!r}: give a number above 0, or None for no limit")


def from_os_error(error: OSError) -> Failure:
    """The failure behind an error of the system: broken connections are transient, what the disk says is not."""
    text = error.strerror or str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return Failure(text, "see whether the host's name is right", transient=error.errno == socket.EAI_AGAIN)
    if isinstance(error, TimeoutError | ConnectionError) or error.errno in _TRANSIENT:
        return Failure(text, "see whether the server is up and can be reached from the node", transient=True)
    where = f" ({error.filename})" if error.filename else ""
    return Failure(text + where, "see to the room and the permissions there, or choose another working_dir")


def persist(url: str, work: Callable[[], T], *, attempts: int, pause_s: float) -> T:
    """Does the work, again after transient failures: after `pause_s` seconds, then twice that, and so on.

    Each pause is shortened by chance by up to a half, so that many nodes do not come back at the same moment.

    Raises:
        StagingError: the last try has failed, or one that another try cannot mend.
        ConfigurationError: `attempts` or `pause_s` is out of its range.
    """
    check_limits(attempts, pause_s)
    attempt = 1
    while True:
        try:
            try:
                return work()
            except OSError as error:
                raise from_os_error(error) from error
        except Failure as failure:
            if failure.transient and attempt < attempts:
                pause = min(pause_s * 2 ** (attempt - 1), LONGEST_PAUSE_S) * random.uniform(0.5, 1)
                wait_s = max(pause, min(failure.wait_s, LONGEST_PAUSE_S))
            else:
                times = f" (tried {attempt} times)" if attempt > 1 else ""
                cause = failure.__cause__ or failure
                raise StagingError(redact(url), failure.cause + times, failure.remedy) from cause
        time.sleep(wait_s)
        attempt += 1


def download(url: str, local_path: str, write: Callable[[Path], None], *, attempts: int, pause_s: float) -> str:
    """Makes `local_path` hold what `write(path)` writes; an older file there is replaced in one step.

    Folders that are missing are made, and stay. Where several ask for the same URL and the same `local_path` at the
    same time, on file systems with locks, one downloads and all use it; if it fails, the next one tries for itself.

    Args:
        url: what the file is; decides, with `local_path`, what is the same.
        local_path: where the file shall be.
        write: writes the content to the path it is given, which does not exist; raises `Failure` or OSError.
        attempts: how often it is tried.
        pause_s: the pause before the second try, in seconds; see `persist`.

    Returns:
        `local_path`.

    Raises:
        StagingError: it did not succeed; nothing of it is left, and an older file is untouched.
        ConfigurationError: `attempts` or `pause_s` is out of its range.
    """
    target = Path(local_path)

    def deliver(temporary: Path) -> None:
        def once() -> None:
            temporary.unlink(missing_ok=True)
            write(temporary)
            temporary.replace(target)

        try:
            persist(url, once, attempts=attempts, pause_s=pause_s)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    while True:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = LockFile(beside(target, "lock"))
        except LocksMissing:  # then each for itself: the names are different, and the last one stays
            deliver(beside(target, f"{secrets.token_hex(8)}.part"))
            return local_path
        except OSError as error:
            failure = from_os_error(error)
            raise StagingError(redact(url), failure.cause, failure.remedy) from error
        with lock:
            if lock.is_current():
                try:
                    lock.write_note(b"")
                    deliver(beside(target, "part"))
                    lock.write_note(_mark(url, target))
                finally:
                    lock.remove()
                return local_path
            if (note := lock.read_note()) and note == _mark(url, target):
                return local_path


def beside(target: Path, suffix: str) -> Path:
    """The path of a helper file for `target`, in the same folder."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return target.with_name(f".{name}.{suffix}")


def _mark(url: str, target: Path) -> bytes:
    """Identifies a file that was downloaded; empty when it is gone. The URL may hold secrets: its hash goes in."""
    try:
        found = target.stat()
    except OSError:
        return b""
    text = f"{hashlib.sha256(url.encode()).hexdigest()} {found.st_ino} {found.st_size} {found.st_mtime_ns}"
    return text.encode()
