"""Members of zip archives on a shared disk, in and out: `zip:/a/b.zip/inner/name`.

Members are added to the archive in place, one process at a time. What the addition overwrites, the archive's directory
at its end, is kept in the lock file meanwhile, so that a failure, or the death of the process, costs no other member:
the next one to use the archive puts the directory back. Members that exist are never moved; readers therefore need the
lock only while they read the directory.

Other programs do not know these locks: they should read the archive when no task writes to it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import re
import shutil
import struct
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Literal
from zlib import error as zlib_error

from mpitask.files import File
from mpitask.staging.base import DataManager, Staging, give_place, make_folder
from mpitask.staging.errors import StagingError, ZipAuthorityError
from mpitask.staging.locks import LockFile, LocksMissing
from mpitask.staging.transfer import Failure, beside, check_most, download, from_os_error, persist, redact

MAX_BYTES = 64 << 30
MAX_RATIO = 200.0
_ANY_RATIO_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 18
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})  # there is no place for a lock file
_PATH = re.compile(r"(.+?\.zip)/+(.+)", re.IGNORECASE | re.DOTALL)
_JOURNAL = struct.Struct("=QQ32s")  # the archive's inode, where its directory begins, the digest of what follows: it


def split(url: str) -> tuple[str, str]:
    """The path of the archive and the name of the member; the archive ends at the first `.zip/`.

    Raises:
        ZipAuthorityError: the URL has a host.
        StagingError: it does not name an archive and a member, or the member's name leaves the archive.
    """
    file = File(url)
    if file.netloc:
        raise ZipAuthorityError(
            redact(url),
            f"it names the host {file.netloc!r}",
            "an archive is a local file: write zip:/path/to.zip/member",
        )
    match = _PATH.fullmatch(file.path)
    member = posixpath.normpath(match[2]) if match else "."
    if file.scheme != "zip" or not match or match[2].endswith("/") or member.split("/")[0] in (".", ".."):
        raise StagingError(url, "it does not name a file in an archive", "write zip:/path/to.zip/member")
    return match[1], member


def extract(
    url: str, local_path: str, *, max_bytes: int | None = MAX_BYTES, max_ratio: float | None = MAX_RATIO
) -> str:
    """Takes a member out of an archive; runs on a worker.

    Args:
        url: names archive and member.
        local_path: where to; replaced in one step.
        max_bytes: how large the member may be when it is unpacked; None: as large as it is.
        max_ratio: how many times larger than packed it may be, when it has more than 16 MiB; None: as many as it is.

    Returns:
        `local_path`.

    Raises:
        ZipAuthorityError: the URL has a host.
        StagingError: archive or member are missing or damaged, or it is too large; nothing of it is left.
    """
    name, member = split(url)
    archive = Path(name)

    def write(temporary: Path) -> None:
        with _problems(archive), _open(archive) as opened:
            if member not in opened.NameToInfo:
                raise Failure(f"{archive} has no member {member!r}", f"it has {_some(opened.namelist())}")
            _check_size(opened.NameToInfo[member], archive, max_bytes, max_ratio)
            with opened.open(member) as source, temporary.open("xb") as out:
                shutil.copyfileobj(source, out, _CHUNK_BYTES)

    return download(url, local_path, write, attempts=1, pause_s=0)


def _check_size(info: zipfile.ZipInfo, archive: Path, max_bytes: int | None, max_ratio: float | None) -> None:
    """By what the archive says: a member is read to the size that is said there, and no further."""
    size_bytes, packed_bytes = info.file_size, min(info.compress_size, archive.stat().st_size)
    what = f"{info.filename!r} in {archive} has {size_bytes:,} bytes unpacked"
    if max_bytes is not None and size_bytes > max_bytes:
        raise Failure(
            f"{what}, more than {max_bytes:,}",
            "if that is right, use ZipFileStaging(max_bytes=...) or unpack it before",
        )
    if max_ratio is not None and size_bytes > max(_ANY_RATIO_BYTES, max_ratio * packed_bytes):
        raise Failure(
            f"{what}, more than {max_ratio:g} times what it has packed, as if it were made to fill the disk",
            "if that is right, use ZipFileStaging(max_ratio=None) or unpack it before",
        )


def insert(local_path: str, url: str) -> str:
    """Puts a file into an archive, which is made if there is none; runs on a worker.

    A member of that name is replaced; the room that it took stays lost.

    Args:
        local_path: the file.
        url: names archive and member.

    Returns:
        The URL.

    Raises:
        ZipAuthorityError: the URL has a host.
        StagingError: it did not succeed; the archive is as it was.
    """
    name, member = split(url)
    archive = Path(name)

    def add() -> None:
        if not Path(local_path).is_file():
            raise Failure(f"the task has not written {local_path}", "let it write to the path of its output File")
        with _problems(archive), _locked(archive) as lock:
            if archive.exists():
                _append(archive, lock, local_path, member)
            else:
                _create(archive, local_path, member)

    persist(url, add, attempts=1, pause_s=0)
    return url


def _create(archive: Path, local_path: str, member: str) -> None:
    temporary = beside(archive, "part")
    try:
        with _writer(temporary, "w") as opened:
            opened.write(local_path, member)
        temporary.replace(archive)
    finally:
        temporary.unlink(missing_ok=True)


def _writer(archive: Path, mode: Literal["a", "w"]) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive, mode, zipfile.ZIP_DEFLATED, strict_timestamps=False)


def _append(archive: Path, lock: LockFile, local_path: str, member: str) -> None:
    with zipfile.ZipFile(archive) as opened:  # mode "a" alone would append to what is no archive, too
        start = opened.start_dir
    with archive.open("rb") as raw:
        raw.seek(start)
        directory = raw.read()
        inode = os.fstat(raw.fileno()).st_ino
    try:
        lock.write_note(_JOURNAL.pack(inode, start, hashlib.sha256(directory).digest()) + directory)
        with _writer(archive, "a") as opened:
            old = opened.NameToInfo.pop(member, None)
            if old is not None:
                opened.filelist.remove(old)
            opened.write(local_path, member)
    except BaseException:
        _put_back(archive, lock)
        raise
    lock.write_note(b"")


def _put_back(archive: Path, lock: LockFile) -> None:
    """Undoes an addition that was not finished, if the note tells of one."""
    note = lock.read_note()
    if len(note) >= _JOURNAL.size and archive.exists():
        inode, start, digest = _JOURNAL.unpack_from(note)
        directory = note[_JOURNAL.size :]
        with archive.open("r+b") as raw:
            # A note that was cut short means that the addition had not begun.
            if hashlib.sha256(directory).digest() == digest and os.fstat(raw.fileno()).st_ino == inode:
                raw.seek(start)
                raw.write(directory)
                raw.truncate()
    lock.write_note(b"")


@contextlib.contextmanager
def _locked(archive: Path) -> Iterator[LockFile]:
    """Holds the archive, in the state before any addition that was not finished."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with LockFile(beside(archive, "lock")) as lock:
            if lock.is_current():
                _put_back(archive, lock)
                try:
                    yield lock
                finally:
                    if not lock.read_note():  # else it is still needed to put the archive right
                        lock.remove()
                return


@contextlib.contextmanager
def _open(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Opens an archive for reading."""
    with contextlib.ExitStack() as stack:
        try:
            if not archive.exists():
                raise FileNotFoundError(2, "there is no such archive", str(archive))
            with _locked(archive):
                opened = stack.enter_context(zipfile.ZipFile(archive))
        except OSError as error:
            if not isinstance(error, LocksMissing) and error.errno not in _READ_ONLY:
                raise
            opened = stack.enter_context(zipfile.ZipFile(archive))
        yield opened


@contextlib.contextmanager
def _problems(archive: Path) -> Iterator[None]:
    try:
        yield
    except LocksMissing as error:
        raise Failure(f"the file system of {archive} has no locks", "put the archive on another one") from error
    except FileNotFoundError as error:
        raise Failure(f"{error.strerror} ({error.filename})", "see whether the path is right") from error
    except OSError as error:
        raise from_os_error(error) from error
    except (zipfile.BadZipFile, zlib_error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Failure(f"{archive} cannot be used: {error}", "see whether it is a whole zip archive") from error


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more if names else "no members"


class ZipFileStaging(Staging):
    """Takes files out of zip archives, and puts them in, each by a task of its own: `zip:/a/b.zip/inner/name`.

    Archives and `working_dir` lie where all nodes see them; relative paths are seen from the folder of the script.

    Args:
        max_bytes: how large a member may be when it is unpacked; None: as large as it is.
        max_ratio: how many times larger than packed it may be, when it has more than 16 MiB; None: as many as it is.

    Raises:
        ConfigurationError: a limit is out of its range.
    """

    def __init__(self, *, max_bytes: int | None = MAX_BYTES, max_ratio: float | None = MAX_RATIO) -> None:
        check_most("max_bytes", max_bytes)
        check_most("max_ratio", max_ratio)
        self._extract = partial(extract, max_bytes=max_bytes, max_ratio=max_ratio)

    def can_stage_in(self, file: File) -> bool:
        """True for zip: URLs.

        Raises:
            ZipAuthorityError: the URL has a host.
            StagingError: it does not name an archive and a member.
        """
        return file.scheme == "zip" and bool(split(file.url))

    def can_stage_out(self, file: File) -> bool:
        """True for zip: URLs; raises what `can_stage_in` raises."""
        return self.can_stage_in(file)

    def stage_in(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        parent_fut: Future[Any] | None,
    ) -> Future[Any]:
        """Submits the extraction."""
        label = f"stage in {file.url}"
        return dm.submit(self._extract, _absolute(file), give_place(dm, file), label=label, after=parent_fut)

    def stage_out(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        app_fu: Future[Any],
    ) -> Future[Any]:
        """Submits the insertion, to be run after the task."""
        local_path = give_place(dm, file)
        make_folder(local_path)
        return dm.submit(insert, local_path, _absolute(file), label=f"stage out {file.url}", after=app_fu)


def _absolute(file: File) -> str:
    archive, member = split(file.url)
    return f"zip:{Path(archive).absolute()}/{member}"
