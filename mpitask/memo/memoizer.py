"""Memoisation: a call that has been made before is not made again, in this run or, from a checkpoint, in a later one.

Guarantees:

- Of identical calls one runs at a time: the others get its future. A plugin of another kind may do otherwise.
- Within a run, results are remembered; exceptions only with `cache_failures`, and never what says nothing of the
  function: a lost worker, a cancellation, a dependency that failed. Calls that wait for the same call share its end.
- Checkpoints hold results only, as they were when the task ended. They hold every result that the run made or took from
  an older checkpoint, so that the newest checkpoint is enough for the next run.

A result that cannot be pickled, or read back, costs a warning in the log and another run of its task; no task fails
for it.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import MutableMapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cloudpickle

from mpitask.errors import ConfigurationError, DependencyError, MpitaskError, TaskError, WorkerLost
from mpitask.memo.checkpoints import STORE_NAME, Pickled, get_all_checkpoints, read_checkpoints
from mpitask.memo.identity import NotIdentified
from mpitask.memo.keys import make_key
from mpitask.memo.store import Store

Task = MutableMapping[str, Any]
Mode = Literal["task_exit", "periodic", "dfk_exit", "manual"]

MODES = ("task_exit", "periodic", "dfk_exit", "manual")

_log = logging.getLogger("mpitask")


class Memoizer(ABC):
    """Decides whether a task has to run. The engine calls it, from any of its threads.

    A task is a mapping with the keys `id`, `memoize` (bool), `func`, `args`, `kwargs`, `ignore_for_cache` (names, or
    None), `app_fu` (the task's future), `hashsum` (set by `check_memo`) and, if wanted, `cache_key` ("name": functions
    are their names), `identity` (bytes: what the function was when it was called) and `cache_failures` (bool).
    """

    @abstractmethod
    def start(self, *, run_dir: str, config_run_dir: str) -> None:
        """Called once, before the first task. `run_dir` is this run's own directory in `config_run_dir`."""

    @abstractmethod
    def check_memo(self, task: Task) -> Future[Any] | None:
        """Called when the arguments of a task are known. A future: take what it gives. None: run the task.

        Raises:
            Exception: the task fails with it.
        """

    @abstractmethod
    def update_memo_result(self, task: Task, result: Any) -> None:
        """Called when a task has given a result, before anyone else can see (and change) it."""

    @abstractmethod
    def update_memo_exception(self, task: Task, exception: BaseException) -> None:
        """Called instead when a task has finally failed; not for attempts that will be repeated."""

    @abstractmethod
    def close(self) -> None:
        """Called once, after the last task."""


@dataclass(frozen=True, slots=True)
class _Running:
    future: Future[Any]


@dataclass(frozen=True, slots=True)
class _Result:
    value: Any


@dataclass(frozen=True, slots=True)
class _Failure:
    exception: BaseException


@dataclass(frozen=True, slots=True)
class _Loaded:
    """From a checkpoint, and not asked for yet. `content` may be Pickled."""

    content: Any


_Entry = _Running | _Result | _Failure | _Loaded


class BasicMemoizer(Memoizer):
    """Memoises in memory and, with a checkpoint mode, in `<run_dir>/checkpoint/tasks.memo`.

    Any thread may call any method.

    Args:
        checkpoint_files: checkpoints to begin with: directories or files. None: with a mode, all of earlier runs;
            without one, none.
        checkpoint_period: for "periodic": how often, as "HH:MM:SS".
        checkpoint_mode: when results go to disk. "task_exit": as each task ends (within half a second); "periodic":
            every `checkpoint_period`; "dfk_exit": when the run ends; "manual": when `checkpoint()` is called. What is
            left at the end of the run is written then, in every mode. None: never.
        memoize: False switches memoisation off for all tasks.
        cache_failures: exceptions are remembered for the run, too, where the task does not say otherwise.

    Raises:
        ConfigurationError: a value is out of its range; the message says what is allowed.
    """

    def __init__(
        self,
        *,
        checkpoint_files: Sequence[str | os.PathLike[str]] | None = None,
        checkpoint_period: str | None = None,
        checkpoint_mode: Mode | None = None,
        memoize: bool = True,
        cache_failures: bool = False,
    ) -> None:
        if checkpoint_mode is not None and checkpoint_mode not in MODES:
            raise ConfigurationError(f"checkpoint_mode={checkpoint_mode!r}: give None or one of {', '.join(MODES)}")
        for name, value in (("memoize", memoize), ("cache_failures", cache_failures)):
            if not isinstance(value, bool):
                raise ConfigurationError(f"{name}={value!r}: give True or False")
        self.checkpoint_files = _check_files(checkpoint_files)
        self.checkpoint_period = checkpoint_period
        self.checkpoint_mode = checkpoint_mode
        self.memoize = memoize
        self.cache_failures = cache_failures
        self._period_s = None if checkpoint_period is None else _seconds(checkpoint_period)
        if checkpoint_mode == "periodic" and self._period_s is None:
            raise ConfigurationError("checkpoint_mode='periodic' needs checkpoint_period='HH:MM:SS'")
        if checkpoint_mode != "periodic" and self._period_s is not None:
            _log.warning("checkpoint_period has an effect with checkpoint_mode='periodic' only")
        self._run_dir: Path | None = None
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()  # of the entries; nothing of the user's runs under it
        self._unsaved: list[tuple[str, bytes]] = []
        self._store: Store | None = None
        self._failed_to_save = False
        self._store_lock = threading.Lock()  # of the two above
        self._stop = threading.Event()
        self._timer: threading.Thread | None = None

    # -- the run --

    def start(self, *, run_dir: str, config_run_dir: str) -> None:
        """Loads the checkpoints.

        Raises:
            BadCheckpoint: one is missing or damaged.
        """
        files: Sequence[str | os.PathLike[str]] = self.checkpoint_files or []
        if self.checkpoint_files is None and self.checkpoint_mode is not None:
            files = get_all_checkpoints(config_run_dir)
        loaded = read_checkpoints(files)
        if self.memoize:
            with self._lock:
                self._entries.update((key, _Loaded(content)) for key, content in loaded.items())
        if files:
            _log.info("%d results loaded from %d checkpoints", len(loaded), len(files))
        self._run_dir = Path(run_dir)
        if self.checkpoint_mode == "periodic":
            self._timer = threading.Thread(target=self._save_periodically, name="mpitask-checkpoint-timer", daemon=True)
            self._timer.start()

    def close(self) -> None:
        """Writes what is left to the checkpoint. May be called again.

        Raises:
            OSError: it cannot be written, and is lost.
        """
        self._stop.set()
        if self._timer is not None:
            self._timer.join()
        try:
            self._save()
        finally:
            with self._store_lock:
                store, self._store = self._store, None
                self._run_dir = None
            if store is not None:
                store.close()

    def checkpoint(self) -> None:
        """Writes all results that there are to the checkpoint, and waits until they are safe on disk.

        Raises:
            ConfigurationError: there is no `checkpoint_mode`, or the run has not begun or has ended.
            OSError: they cannot be written. They are kept, and tried again.
        """
        if self.checkpoint_mode is None:
            raise ConfigurationError(f"checkpoint() needs a checkpoint_mode: one of {', '.join(MODES)}")
        if self._run_dir is None:
            raise ConfigurationError("checkpoint() can be called only while an engine with this memoizer is loaded")
        self._save()
        if self._store is not None:
            self._store.flush()

    # -- tasks --

    def check_memo(self, task: Task) -> Future[Any] | None:
        """The outcome of an identical call, or the future of one that is running; None when the task has to run.

        Sets `task["hashsum"]`. After None, the engine reports the task's end by one of the two methods below, or
        cancels `task["app_fu"]`.

        Raises:
            ValueError: an argument cannot be identified.
        """
        if not self.memoize or not task["memoize"]:
            task["hashsum"] = None
            return None
        try:
            key = make_key(
                task["func"],
                task["args"],
                task["kwargs"],
                task.get("ignore_for_cache"),
                by_name=task.get("cache_key") == "name",
                identity=task.get("identity"),
            )
        except NotIdentified as error:
            tell_once(task["func"], error)
            task["hashsum"] = None
            return None
        task["hashsum"] = key
        mine: Future[Any] = task["app_fu"]
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is None or (isinstance(entry, _Running) and entry.future.cancelled()):
                    self._entries[key] = _Running(mine)
                    return None
            if isinstance(entry, _Running):
                return None if entry.future is mine else entry.future  # mine: another attempt at the same task
            if isinstance(entry, _Loaded):
                self._unpack(key, entry)
                continue
            future: Future[Any] = Future()
            if isinstance(entry, _Result):
                future.set_result(entry.value)
            else:
                future.set_exception(entry.exception)
            return future

    def update_memo_result(self, task: Task, result: Any) -> None:
        """Remembers the result of a task that `check_memo` has let run. Of other tasks, it is known already."""
        if self._settle(task, _Result(result)) and self.checkpoint_mode is not None:
            try:
                payload = _pickle(result)
            except Exception as error:  # noqa: BLE001 - pickling calls the user's code
                _log.warning("the result of task %s is not in the checkpoint: %s", task.get("id"), error)
                return
            self._keep(task["hashsum"], payload)

    def update_memo_exception(self, task: Task, exception: BaseException) -> None:
        """Forgets the task; or remembers, for this run, that the function failed, if that is wanted."""
        wanted = task.get("cache_failures")
        wanted = self.cache_failures if wanted is None else wanted
        self._settle(task, _Failure(exception) if wanted and _is_of_function(exception) else None)

    def _settle(self, task: Task, outcome: _Entry | None) -> bool:
        """Replaces a running task by its outcome; whether it was this task that had to run."""
        key = task.get("hashsum")
        if key is None:
            return False
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and not (isinstance(entry, _Running) and entry.future is task["app_fu"]):
                return False
            if outcome is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = outcome
        return True

    def _unpack(self, key: str, entry: _Loaded) -> None:
        """Makes a loaded entry a result, and a part of this run's checkpoint; removes it when that fails."""
        outcome: _Entry | None = None
        payload: bytes | None = None
        try:
            if isinstance(entry.content, Pickled):
                payload = entry.content.payload
                outcome = _Result(pickle.loads(payload))
            else:
                outcome = _Result(entry.content)
                payload = None if self.checkpoint_mode is None else _pickle(entry.content)
        except Exception as error:  # noqa: BLE001 - unpickling calls whatever it is told to
            _log.warning("a result in a checkpoint cannot be used, and its task runs again: %r", error)
        with self._lock:
            if self._entries.get(key) is not entry:
                return  # another thread was faster
            if outcome is None:
                del self._entries[key]
            else:
                self._entries[key] = outcome
        if payload is not None and outcome is not None and self.checkpoint_mode is not None:
            self._keep(key, payload)

    # -- the checkpoint --

    def _keep(self, key: str, payload: bytes) -> None:
        with self._store_lock:
            if self._run_dir is None:
                _log.warning("a task ended after its engine; its result is not in the checkpoint")
                return
            self._unsaved.append((key, payload))
        if self.checkpoint_mode == "task_exit":
            self._try_to_save()

    def _save(self) -> None:
        """Gives the unsaved results to the store, which is made for the first of them."""
        with self._store_lock:
            if not self._unsaved or self._run_dir is None:
                return
            if self._store is None:
                self._store = Store.open(self._run_dir / "checkpoint" / STORE_NAME)
            for key, payload in self._unsaved:
                self._store.append(key, payload)
            self._unsaved = []

    def _save_periodically(self) -> None:
        while not self._stop.wait(self._period_s):
            self._try_to_save()

    def _try_to_save(self) -> None:
        """As `_save`; but a checkpoint that cannot be made must not end a task. `close` raises what is wrong."""
        try:
            self._save()
        except (OSError, MpitaskError) as error:
            if not self._failed_to_save:
                _log.error("the checkpoint cannot be made; the results are kept in memory: %s", error)
            self._failed_to_save = True


_told: set[tuple[str, str]] = set()


def tell_once(fn: Any, error: NotIdentified) -> None:
    """Says that calls of a function run without a cache, and why; once for each reason."""
    name = f"{getattr(fn, '__module__', None)}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
    if (name, str(error)) not in _told:
        _told.add((name, str(error)))
        _log.warning(
            "calls of %s are run and not remembered: what it is cannot be told. %s. Give that as an argument (see "
            "ignore_for_cache), or say cache_key='name' if its name is enough",
            name,
            error,
        )


def _is_of_function(exception: BaseException) -> bool:
    """Whether the same call would fail in the same way again, as far as one can know."""
    if isinstance(exception, TaskError):
        return not isinstance(exception, DependencyError | WorkerLost)
    return isinstance(exception, Exception) and not isinstance(exception, MpitaskError | CancelledError)


def _check_files(files: Any) -> list[str | os.PathLike[str]] | None:
    if files is None:
        return None
    if isinstance(files, str | os.PathLike):
        return [files]
    if not isinstance(files, Sequence) or not all(isinstance(file, str | os.PathLike) for file in files):
        raise ConfigurationError(f"checkpoint_files={files!r}: give a list of paths, or None")
    return list(files)


def _seconds(period: Any) -> int:
    match = re.fullmatch(r"(\d+):(\d+):(\d+)", period, re.ASCII) if isinstance(period, str) else None
    hours, minutes, seconds = (int(number) for number in match.groups()) if match else (0, 0, 0)
    total_s = 3600 * hours + 60 * minutes + seconds
    if not 0 < total_s <= threading.TIMEOUT_MAX:
        raise ConfigurationError(f"checkpoint_period={period!r}: give 'HH:MM:SS', at least '00:00:01'")
    return total_s


def _pickle(result: Any) -> bytes:
    """By reference where possible, so that the script's own classes come back as themselves."""
    try:
        return pickle.dumps(result, 5)
    except Exception:  # noqa: BLE001 - whatever the plain pickler does not like, the other one may
        data: bytes = cloudpickle.dumps(result, 5)
        return data
