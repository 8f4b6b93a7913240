"""Checkpoints: where the results of a run are kept, and how a later run gets them back.

A checkpoint is the directory `<run_dir>/checkpoint` with a store, `tasks.memo`; the payloads are pickles. `tasks.pkl`
is read as well: pickles in a row of dicts {'hash', 'exception', 'result'}, as other engines write them. In these,
damage in the middle cannot always be told from a last record that was not written to its end.

Reading a checkpoint unpickles, which can run code: one that others than this user (and root) can have written is
refused, by its owner and mode; what lies within, nobody checks.

Thread rule: every function may be called from any thread.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import pickletools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mpitask.memo.store import AnyPath, BadCheckpoint, read_records
from mpitask.private import who_else_may_write

STORE_NAME = "tasks.memo"
STREAM_NAME = "tasks.pkl"

_PICKLE_FIRST = b"\x80"

_log = logging.getLogger("mpitask")


class _Shortage:
    """A file for pickletools that remembers whether more was asked for than there is."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.met = False

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.met |= len(data) < size
        return data

    def readline(self) -> bytes:
        line = self._file.readline()
        self.met |= not line.endswith(b"\n")
        return line


def _end_of_pickle(file: io.BufferedReader, offset: int) -> int | None:
    """Where the pickle at `offset` ends; None when the file ends first.

    Raises:
        ValueError: there is none.
    """
    file.seek(offset)
    shortage: Any = _Shortage(file)
    try:
        for _ in pickletools.genops(shortage):  # looks at it without running it
            pass
    except Exception as error:
        if shortage.met:
            return None
        raise ValueError(str(error)) from error
    return file.tell()


def _read_stream(file: io.BufferedReader, path: AnyPath) -> Iterator[tuple[str, Any]]:
    """The results in a file of pickled dicts {'hash', 'exception', 'result'}."""
    while file.peek(1):
        offset = file.tell()
        try:
            record = pickle.load(file)
        except Exception as error:  # noqa: BLE001 - unpickling calls whatever it is told to
            try:
                end = _end_of_pickle(file, offset)
            except ValueError as damage:
                raise BadCheckpoint(path, offset, f"no pickle: {damage}") from error
            if end is None:
                left_bytes = os.fstat(file.fileno()).st_size - offset
                _log.warning(
                    "checkpoint %s: its last %d bytes are a record that was not written to its end", path, left_bytes
                )
                return
            _log.warning("checkpoint %s: the result at byte %d cannot be unpickled: %r", path, offset, error)
            file.seek(end)
            continue
        if not isinstance(record, dict) or not isinstance(record.get("hash"), str):
            raise BadCheckpoint(path, offset, "this record is not one of a task")
        if record.get("exception") is None and "result" in record:
            yield record["hash"], record["result"]


def _files_of(path: AnyPath) -> list[Path]:
    """The files of a checkpoint, which is given as a file or as the directory that holds it."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    files = [file for name in (STREAM_NAME, STORE_NAME) if (file := path / name).is_file()]
    if not files:
        nested = f"; do you mean {path / 'checkpoint'}?" if (path / "checkpoint").is_dir() else ""
        raise BadCheckpoint(path, 0, f"there is neither {STORE_NAME} nor {STREAM_NAME} in it{nested}")
    return files


def _refuse_what_others_write(fd: int, path: Path) -> None:
    whose = who_else_may_write(fd)
    if whose is not None:
        remedy = "copy it" if whose.startswith("it belongs") else f"run `chmod go-w {path}`"
        reason = f"{whose}, and reading a checkpoint can run code that it holds: if you trust what is in it, {remedy}"
        raise BadCheckpoint(path, 0, reason)


class Pickled:
    """A result that has not been unpickled yet."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


def read_checkpoints(paths: AnyPath | Iterable[AnyPath]) -> dict[str, Any]:
    """As `load_checkpoints`, but what comes out of a store is `Pickled`: most results are never asked for again."""
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    results: dict[str, Any] = {}
    for path in paths:
        for name in _files_of(path):
            try:
                with name.open("rb") as file:
                    _refuse_what_others_write(file.fileno(), name)
                    first = file.peek(1)[:1]
                    if first == _PICKLE_FIRST or (not first and name.suffix == ".pkl"):
                        results.update(_read_stream(file, name))
                    else:
                        results.update((key, Pickled(payload)) for _, key, payload in read_records(file, name))
            except OSError as error:
                raise BadCheckpoint(name, 0, f"it cannot be read: {error.strerror or error}") from error
    return results


def load_checkpoints(paths_or_dirs: AnyPath | Iterable[AnyPath]) -> dict[str, Any]:
    """The results in some checkpoints, by key. Of several results with one key, the last one.

    A result that cannot be unpickled (its class is gone) is left out with a warning in the log; so is a torn last
    record.

    Args:
        paths_or_dirs: stores, pickle streams, or directories that hold a `tasks.memo` or a `tasks.pkl`; or one of them.

    Raises:
        BadCheckpoint: one is missing or damaged, or others may write it.
    """
    results = {}
    for key, value in read_checkpoints(paths_or_dirs).items():
        if not isinstance(value, Pickled):
            results[key] = value
            continue
        try:
            results[key] = pickle.loads(value.payload)
        except Exception as error:  # noqa: BLE001 - unpickling calls whatever it is told to
            _log.warning("the result with key %s cannot be unpickled: %r", key, error)
    return results


def _checkpoint_in(run: Path) -> str | None:
    directory = run / "checkpoint"
    if any((directory / name).is_file() for name in (STORE_NAME, STREAM_NAME)):
        return str(directory.absolute())
    return None


def get_all_checkpoints(rundir: AnyPath = "runinfo") -> list[str]:
    """The checkpoints of all runs, oldest first: directories `<rundir>/<NNN>/checkpoint`. May be none."""
    try:
        runs = [run for run in Path(rundir).iterdir() if run.name.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [_checkpoint_in(run) for run in sorted(runs, key=lambda run: int(run.name))]
    return [directory for directory in found if directory is not None]


def get_last_checkpoint(rundir: AnyPath = "runinfo") -> list[str]:
    """The checkpoint of the last run that made one, as a list of one directory; empty when there is none."""
    return get_all_checkpoints(rundir)[-1:]
