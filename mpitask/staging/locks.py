"""A lock file that lives only as long as somebody uses it, and on which its holder can leave a note.

The holder removes the file at the end, still holding it. Whoever was waiting for it then holds a file that has no name
any more: it knows that it was beaten to it, and can read there what the other one has done. No clock is needed for "at
the same time", and nothing stays in the folder. A holder that is killed leaves the file with its name and its note; the
next one finds both.

The locks are flock's: they belong to an open file, so that they work between threads as well as between processes, the
kernel frees them at the end of the process, and on NFS they hold between nodes.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})


class LocksMissing(OSError):  # noqa: N818 - a fact, which is an error only for some
    """The file system has no locks."""


class LockFile:
    """A lock, held from construction until `close`. A context manager; for one thread.

    Args:
        path: the lock file; made if it is not there.

    Raises:
        LocksMissing: the file system has no locks.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            os.close(self._fd)
            if error.errno in _NO_LOCKS:
                path.unlink(missing_ok=True)
                raise LocksMissing(*error.args) from error
            raise
        except BaseException:
            os.close(self._fd)
            raise

    def is_current(self) -> bool:
        """Whether the file still has its name: if not, another holder has finished while we waited."""
        try:
            named = self._path.lstat()
            held = os.fstat(self._fd)
        except OSError:  # gone, or an NFS server's "stale": gone too
            return False
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def read_note(self) -> bytes:
        """The last note; empty when there is none or it cannot be read any more."""
        try:
            return os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        except OSError:
            return b""

    def write_note(self, note: bytes) -> None:
        """Replaces the note."""
        os.ftruncate(self._fd, 0)
        written = 0
        while written < len(note):
            written += os.pwrite(self._fd, note[written:], written)

    def remove(self) -> None:
        """Takes the name away, so that those who wait know that it is done. Only for a holder of the current file."""
        if self.is_current():
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets the next one in. May be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                fcntl.flock(fd, fcntl.LOCK_UN)  # a process forked meanwhile may have the file open, too
            finally:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
