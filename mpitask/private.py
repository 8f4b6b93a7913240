"""Files and directories of a run, which only their owner may see, whatever the umask; and who may write one.

Thread rule: every function may be called from any thread.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_ROOT = 0


class PrivatePath(str):
    """The path of a file that is made with `opener`, in directories that are made with `make_directories`."""

    __slots__ = ()


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=...)`: a file that is made is its owner's alone; one that is there stays as it is."""
    return os.open(path, flags, FILE_MODE)


def make_directories(path: str | os.PathLike[str]) -> None:
    """Makes a directory and those above it that are missing, for their owner alone.

    Raises:
        OSError: it cannot be made, or is no directory.
    """
    path = Path(path)
    if not path.is_dir():
        make_directories(path.parent)
        path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)


def who_else_may_write(fd: int) -> str | None:
    """Who, apart from this process's user and root, can have written an open file; None: nobody."""
    status = os.fstat(fd)
    if status.st_uid not in (os.geteuid(), _ROOT):
        return f"it belongs to {_name_of(status.st_uid)}"
    if status.st_mode & stat.S_IWOTH:
        return "everybody may write it"
    if status.st_mode & stat.S_IWGRP:
        return "its group may write it"
    return None


def _name_of(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user with number {uid}"
