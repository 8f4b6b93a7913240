"""An append-only log of (key, bytes) that survives crashes: what checkpoints are written to.

A store is a file: a header, then records. Nothing in it is ever changed.

    header   magic, version, a random mark of 8 bytes, CRC-32 of these
    record   the mark, lengths of key and payload, CRC-32 of the two, CRC-32 of all this and of the record's offset;
             key, payload

Guarantees:

- What `flush` has returned for survives the death of the process and of the machine.
- A record is read back whole or not at all. A tail that was being written when the writer died is left out; damage
  with valid records behind it is `BadCheckpoint`. A record counts only in its own file and place (mark, offset), so
  that a payload that holds records, or an old block of a disk, is never taken for one.
- `append` costs no I/O: one thread of the store writes and syncs, at most once in `sync_s`, whatever has come.

Rejected: a record per file (a million of them), a database (locks on network file systems), a pickle stream (one
damaged byte loses all that follows, unseen).
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import logging
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from zlib import crc32

from mpitask.errors import ConfigurationError, MpitaskError
from mpitask.private import DIRECTORY_MODE, FILE_MODE

AnyPath = str | os.PathLike[str]

_MAGIC = b"MPTmemo\n"
_VERSION = 1
_HEADER = struct.Struct("<8sI8s")  # magic, version, mark
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<8sIQI")  # mark, key length, payload length, CRC of key and payload
_OFFSET = struct.Struct("<Q")
_HEADER_BYTES = _HEADER.size + _CRC.size
_HEAD_BYTES = _HEAD.size + _CRC.size
_CHUNK_BYTES = 1 << 20

_log = logging.getLogger("mpitask")


class BadCheckpoint(MpitaskError):  # noqa: N818 - the name that users know
    """A checkpoint is missing, is none, or is damaged.

    Attributes:
        path: the file or directory.
        offset: the byte where the damage begins; 0 when there is nothing to read at all.
        reason: what is wrong.
    """

    def __init__(self, path: AnyPath, offset: int, reason: str = "it is damaged") -> None:
        super().__init__(path, offset, reason)
        self.path = path
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        where = f", at byte {self.offset}" if self.offset else ""
        return f"checkpoint {os.fspath(self.path)}{where}: {self.reason}"


# -- the format --


def _make_header(mark: bytes) -> bytes:
    fields = _HEADER.pack(_MAGIC, _VERSION, mark)
    return fields + _CRC.pack(crc32(fields))


def _make_record(mark: bytes, offset: int, key: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """(head and key, payload) of a record that begins at `offset`."""
    fields = _HEAD.pack(mark, len(key), len(payload), crc32(payload, crc32(key)))
    return fields + _CRC.pack(crc32(_OFFSET.pack(offset), crc32(fields))) + key, payload


def _read_header(head: bytes, path: AnyPath) -> bytes | None:
    """The mark of a store; None when the file ends within the header, so that it holds nothing.

    Raises:
        BadCheckpoint: these are not the first bytes of a store, or of another version of it.
    """
    if len(head) < _HEADER_BYTES:
        if _HEADER.pack(_MAGIC, _VERSION, b"").rstrip(b"\0").startswith(head[:9]):
            return None
        raise BadCheckpoint(path, 0, "it does not begin as a checkpoint does")
    magic, version, mark = _HEADER.unpack_from(head)
    if magic != _MAGIC:
        raise BadCheckpoint(path, 0, "it does not begin as a checkpoint does")
    if _CRC.unpack_from(head, _HEADER.size)[0] != crc32(head[: _HEADER.size]):
        raise BadCheckpoint(path, 0, "its header is damaged")
    if version != _VERSION:
        raise BadCheckpoint(path, 0, f"it has version {version}, and this mpitask reads version {_VERSION}")
    return bytes(mark)


def _read_head(file: BinaryIO, mark: bytes, offset: int) -> tuple[int, int, int] | None:
    """(key length, payload length, CRC of the two) of the record at `offset`; None when there is no valid head."""
    file.seek(offset)
    head = file.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(mark):
        return None
    if _CRC.unpack_from(head, _HEAD.size)[0] != crc32(_OFFSET.pack(offset), crc32(head[: _HEAD.size])):
        return None
    _, key_bytes, payload_bytes, crc = _HEAD.unpack_from(head)
    return key_bytes, payload_bytes, crc


def _read_record(file: BinaryIO, mark: bytes, offset: int, size_bytes: int) -> tuple[int, str, bytes] | None:
    """(offset of its end, key, payload) of the record at `offset`; None when there is no whole and valid one."""
    lengths = _read_head(file, mark, offset)
    if lengths is None:
        return None
    key_bytes, payload_bytes, crc = lengths
    end = offset + _HEAD_BYTES + key_bytes + payload_bytes
    if end > size_bytes:
        return None
    key, payload = file.read(key_bytes), file.read(payload_bytes)
    if len(key) + len(payload) != key_bytes + payload_bytes or crc32(payload, crc32(key)) != crc:
        return None
    return end, key.decode(), payload


def _next_record(file: BinaryIO, mark: bytes, offset: int, size_bytes: int) -> int | None:
    """Where, after `offset`, a valid record begins."""
    at = offset
    while at < size_bytes:
        file.seek(at)
        chunk = file.read(_CHUNK_BYTES)
        if len(chunk) < len(mark):
            return None
        found = chunk.find(mark)
        while found >= 0:
            if at + found > offset and _read_record(file, mark, at + found, size_bytes) is not None:
                return at + found
            found = chunk.find(mark, found + 1)
        at += len(chunk) - len(mark) + 1
    return None


def read_records(file: BinaryIO, path: AnyPath) -> Iterator[tuple[int, str, bytes]]:
    """As `read_store`, of an open file at its beginning; each record with the offset of its end."""
    size_bytes = os.fstat(file.fileno()).st_size
    mark = _read_header(file.read(_HEADER_BYTES), path)
    if mark is None:
        if size_bytes:
            _log.warning("checkpoint %s: only a part of its header was written; it holds nothing", path)
        return
    offset = _HEADER_BYTES
    while offset < size_bytes:
        record = _read_record(file, mark, offset, size_bytes)
        if record is None:
            break
        yield record
        offset = record[0]
    else:
        return
    following = _next_record(file, mark, offset, size_bytes)
    if following is not None:
        raise BadCheckpoint(
            path,
            offset,
            f"damaged up to byte {following}, where valid records follow; `truncate -s {offset} {os.fspath(path)}` "
            "keeps those before the damage",
        )
    _log.warning(
        "checkpoint %s: its last %d bytes are a record that was not written to its end", path, size_bytes - offset
    )


def read_store(path: AnyPath) -> Iterator[tuple[str, bytes]]:
    """The records of a store, in the order in which they were appended; a key may come several times.

    A store that is being written may be read; a record that is not complete yet is left out with a warning in the log.

    Raises:
        BadCheckpoint: there is no such file, it is no store, or a record is damaged and valid ones follow.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - any path
            for _, key, payload in read_records(file, path):
                yield key, payload
    except OSError as error:
        raise BadCheckpoint(path, 0, f"it cannot be read: {error.strerror or error}") from error


# -- writing --


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot, and need not
            os.fsync(fd)
    finally:
        os.close(fd)


def _make_directory(path: Path) -> None:
    """Makes a directory and those above it, so that they survive a crash of the machine."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    _sync_directory(path.parent)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise ConfigurationError(
                f"{path} is being written by another process: give each run its own directory"
            ) from None
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


class Store:
    """A checkpoint file that is open for appending. Any thread may call any method.

    Its thread takes over all I/O. While the disk does not take the data (it is full, say) they stay in memory and are
    tried again; `flush` and `close` then raise what the system says. A process that is forked from this one must not
    use the store: it has no such thread.

    Attributes:
        path: the file.
        sync_s: the least time between two syncs that nobody has asked for.
    """

    def __init__(self, fd: int, path: Path, mark: bytes, end: int, sync_s: float) -> None:
        self.path = path
        self.sync_s = sync_s
        self._pid = os.getpid()
        self._fd = fd
        self._mark = mark
        self._end = end  # of what is durable
        self._pending: list[tuple[bytes, bytes]] = []
        self._appended = 0  # records, since it was opened
        self._durable = 0
        self._attempting = False
        self._attempts = 0  # to write, that have ended
        self._attempts_wanted = 0  # so many must be made without delay
        self._error: OSError | MemoryError | None = None  # why the last attempt failed
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="mpitask-checkpoint", daemon=True)
        self._thread.start()
        atexit.register(self._flush_at_exit)

    @classmethod
    def open(cls, path: AnyPath, *, sync_s: float = 0.5) -> Self:
        """Opens a file for appending; makes it, and its directory, for their owner alone, when they are missing.

        What a writer left unfinished at its end is cut off.

        Args:
            path: the file.
            sync_s: the least time between two syncs, in seconds.

        Raises:
            BadCheckpoint: it exists, and is no store or is damaged.
            ConfigurationError: another process is writing it, or `sync_s` is negative.
            OSError: it cannot be made or written.
        """
        if not sync_s >= 0:
            raise ConfigurationError(f"sync_s={sync_s!r}: give a number of seconds, 0 or more")
        path = Path(path).absolute()
        _make_directory(path.parent)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            _lock(fd, path)
            with open(fd, "rb", closefd=False) as file:
                end = _HEADER_BYTES
                for end, _, _ in read_records(file, path):  # noqa: B007 - the last one is wanted
                    pass
                file.seek(0)
                mark = _read_header(file.read(_HEADER_BYTES), path)
            if mark is None:
                mark = os.urandom(8)
                os.pwrite(fd, _make_header(mark), 0)
            os.ftruncate(fd, end)
            os.fsync(fd)
            _sync_directory(path.parent)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, path, mark, end, sync_s)

    def append(self, key: str, payload: bytes) -> None:
        """Takes a record to be written soon. Does no I/O and does not wait.

        Raises:
            TypeError: the key is no str, or the payload no bytes.
            ValueError: the store is closed, or the key cannot be encoded.
        """
        if not isinstance(key, str) or not isinstance(payload, bytes):
            raise TypeError(f"a record is a str and bytes, not {type(key).__name__} and {type(payload).__name__}")
        name = key.encode()
        with self._changed:
            if self._closing:
                raise ValueError(f"checkpoint {self.path} is closed")
            self._pending.append((name, payload))
            self._appended += 1
            if len(self._pending) == 1:  # with more than one, the thread knows already
                self._changed.notify_all()

    def flush(self) -> None:
        """Waits until everything appended before is durable; does not wait for `sync_s` to pass.

        Raises:
            OSError: it could not be written. It is kept, and tried again.
            ValueError: the store is closed and some of it is not durable.
        """
        with self._changed:
            wanted = self._appended
            if self._durable == wanted:
                return
            last = self._attempts + self._attempting + 1  # the first attempt that begins after this call
            self._attempts_wanted = max(self._attempts_wanted, last)
            self._changed.notify_all()
            while self._durable < wanted:
                if self._error is not None and self._attempts >= last:
                    raise self._error
                if not self._thread.is_alive():
                    raise self._error or ValueError(f"checkpoint {self.path} is closed, or belongs to another process")
                self._changed.wait(1.0)

    def close(self) -> None:
        """Makes everything durable and closes the file. May be called again.

        Raises:
            OSError: something could not be written, and is lost.
        """
        if os.getpid() != self._pid:  # a forked process: the thread and the data are the parent's
            return
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        atexit.unregister(self._flush_at_exit)
        self._thread.join()
        os.close(self._fd)
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _flush_at_exit(self) -> None:
        """For those who forget to close. Does not close: who does it, may do it after this."""
        if os.getpid() != self._pid:
            return
        try:
            self.flush()
        except (OSError, MemoryError, ValueError) as error:
            _log.error("checkpoint %s: the last results are lost: %s", self.path, error)

    # -- the thread --

    def _run(self) -> None:
        next_sync_s = 0.0
        while True:
            with self._changed:
                while not self._due(next_sync_s):
                    left_s = next_sync_s - time.monotonic() if self._pending else None
                    self._changed.wait(left_s)
                batch = self._pending[:]
                closing = self._closing
                self._attempting = True
            try:
                end = self._write(batch) if batch else self._end
                error = None
            except (OSError, MemoryError) as caught:
                end, error = self._end, caught
                if self._error is None:
                    _log.error("checkpoint %s cannot be written; the results are kept in memory: %s", self.path, error)
            next_sync_s = time.monotonic() + self.sync_s
            with self._changed:
                if error is None:
                    del self._pending[: len(batch)]
                    self._durable += len(batch)
                    self._end = end
                self._attempting = False
                self._attempts += 1
                self._error = error
                self._changed.notify_all()
                if closing:
                    return

    def _due(self, next_sync_s: float) -> bool:
        if self._closing or self._attempts < self._attempts_wanted:
            return True
        return bool(self._pending) and time.monotonic() >= next_sync_s

    def _write(self, batch: list[tuple[bytes, bytes]]) -> int:
        """Makes records durable; gives the file's new end. After a failure, the same bytes go to the same place."""
        offset = self._end
        parts: list[bytes] = []
        size_bytes = 0
        for key, payload in batch:
            for part in _make_record(self._mark, offset + size_bytes, key, payload):
                parts.append(part)
                size_bytes += len(part)
            if size_bytes >= _CHUNK_BYTES:
                offset = self._write_at(offset, parts)
                parts, size_bytes = [], 0
        offset = self._write_at(offset, parts)
        os.fdatasync(self._fd)
        return offset

    def _write_at(self, offset: int, parts: list[bytes]) -> int:
        rest = memoryview(b"".join(parts))
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            rest = rest[written:]
            offset += written
        return offset
