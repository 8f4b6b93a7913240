"""`parsl.dataflow.memoization`: mpitask's, with checkpoints in the form of Parsl.

As there, a function is its name, whatever its code, and a call that has failed fails again.

Types registered with `id_for_memo` are known everywhere.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import threading
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import mpitask.memo
from mpitask.memo import BadCheckpoint, Memoizer, make_key
from mpitask.private import make_directories, opener

__all__ = ["BadCheckpoint", "BasicMemoizer", "Memoizer", "id_for_memo", "make_hash"]

_log = logging.getLogger("parsl")


def make_hash(task: Mapping[str, Any]) -> str:
    """The key of a task, under which its result is remembered."""
    return make_key(task["func"], task["args"], task["kwargs"], task.get("ignore_for_cache"), by_name=True)


class _IdForMemo:
    """mpitask's `id_for_memo`; functions that are registered here may give text as well as bytes."""

    def __call__(self, obj: Any, output_ref: bool = False) -> bytes:
        return mpitask.memo.id_for_memo(obj, output_ref)

    def register(self, kind: Any, func: Callable[..., Any] | None = None) -> Any:
        """Registers a function for a type: `@id_for_memo.register(Mesh)`, or with an annotated first argument."""
        if func is None and not isinstance(kind, type):
            hints = typing.get_type_hints(kind)
            return self.register(next(iter(hints.values())), kind)
        if func is None:
            return functools.partial(self.register, kind)
        mpitask.memo.id_for_memo.register(kind, _giving_bytes(func))
        return func

    def __getattr__(self, name: str) -> Any:
        return getattr(mpitask.memo.id_for_memo, name)


def _giving_bytes(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def encoded(obj: Any, output_ref: bool = False) -> Any:
        found = func(obj, output_ref=output_ref)
        return found.encode(errors="surrogatepass") if isinstance(found, str) else found

    return encoded


id_for_memo = _IdForMemo()


class BasicMemoizer(mpitask.memo.BasicMemoizer):
    """mpitask's memoizer, whose checkpoint is `<run_dir>/checkpoint/tasks.pkl`.

    That is a row of pickled dicts {'hash', 'exception', 'result'}. What is in it has been given to the system as soon
    as it is written, and is on disk after `checkpoint()` and `close()`.
    """

    _stream: _Stream | None = None

    def checkpoint(self) -> None:
        """As the base class says."""
        super().checkpoint()
        if self._stream is not None:
            self._stream.sync()

    def close(self) -> None:
        """As the base class says."""
        try:
            super().close()
        finally:
            stream, self._stream = self._stream, None
            if stream is not None:
                stream.sync()
                stream.close()

    def update_memo_exception(self, task: Any, exception: BaseException) -> None:
        """As the base class says. The file is there after the first task of a run, however that has ended."""
        super().update_memo_exception(task, exception)
        if self.checkpoint_mode == "task_exit":
            self._try_to_save()

    def _save(self) -> None:
        with self._store_lock:
            if self.checkpoint_mode is None or self._run_dir is None:
                return
            if self._stream is None:
                self._stream = _Stream(self._run_dir / "checkpoint" / "tasks.pkl")
            waiting, self._unsaved = self._unsaved, []
            self._stream.append(waiting)
        if waiting:
            _log.info("Done checkpointing %d tasks", len(waiting))
        else:
            _log.info("No tasks checkpointed in this pass.")


class _Stream:
    """A file of pickles, open for appending."""

    def __init__(self, path: Path) -> None:
        make_directories(path.parent)
        self._file: IO[bytes] = open(path, "ab", buffering=0, opener=opener)  # noqa: SIM115
        self._lock = threading.Lock()

    def append(self, results: list[tuple[str, bytes]]) -> None:
        """Writes some results, each with its key."""
        data = [pickle.dumps({"hash": key, "exception": None, "result": _Again(payload)}) for key, payload in results]
        if data:
            with self._lock:
                self._file.write(b"".join(data))

    def sync(self) -> None:
        """Waits until all is on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class _Again:
    """A pickle inside another one, which unpickles as its content."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def __reduce__(self) -> Any:
        return pickle.loads, (self._payload,)
