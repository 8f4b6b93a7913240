"""Before a call can run: what its arguments say by name, the files that it makes, and those that must be brought in."""

from __future__ import annotations

import concurrent.futures
import numbers
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mpitask.codec import SCALARS
from mpitask.config import Config
from mpitask.dataflow import walk
from mpitask.dataflow.record import AUTO_LOGNAME, CallFuture, FilesFuture, TaskRecord
from mpitask.dataflow.threads import Threads
from mpitask.engine import Engine
from mpitask.errors import shown
from mpitask.files import File
from mpitask.futures import DataFuture, Future
from mpitask.private import PrivatePath
from mpitask.staging import DEFAULT_STAGING, Staging, choose

BY_NAME = frozenset({"inputs", "outputs", "stdout", "stderr", "walltime"})


def holds_plain_values(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether nothing in the arguments has to be prepared or waited for."""
    if not BY_NAME.isdisjoint(kwargs):
        return False
    if SCALARS.issuperset(map(type, args)) and SCALARS.issuperset(map(type, kwargs.values())):
        return True
    return not walk.find((args, kwargs), (File, concurrent.futures.Future))


class _Submits(Protocol):
    @property
    def run_dir(self) -> str: ...

    def submit(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        name: str | None = ...,
        after: concurrent.futures.Future[Any] | None = ...,
    ) -> CallFuture: ...


class Transfers:
    """What staging providers need of the kernel."""

    def __init__(self, kernel: _Submits) -> None:
        self._kernel: _Submits = weakref.proxy(kernel)  # which has this: they go together, without a look for cycles

    @property
    def working_dir(self) -> str:
        """Where files from elsewhere are brought."""
        return os.path.join(self._kernel.run_dir, "files")  # noqa: PTH118

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, label: str, after: concurrent.futures.Future[Any] | None = None
    ) -> CallFuture:
        """Runs `fn(*args)` as a task once `after` has ended well."""
        return self._kernel.submit(fn, args, {}, name=label, after=after)


class Preparation:
    """The half of the kernel that prepares calls. Thread rule: the kernel's."""

    engine: Engine
    config: Config
    _pool: Threads

    def __init__(self, transfers: Transfers) -> None:
        self.staging: Sequence[Staging] = DEFAULT_STAGING
        self._transfers = transfers

    @property
    def run_dir(self) -> str:
        """The run directory."""
        raise NotImplementedError

    def _prepare(self, record: TaskRecord) -> None:
        """Streams, outputs, files: what is in the arguments by name."""
        kwargs = record["kwargs"]
        if not BY_NAME.isdisjoint(kwargs):
            kwargs = record["kwargs"] = dict(kwargs)
            self._prepare_by_name(record, kwargs)
        found = walk.find((record["args"], kwargs), (File, concurrent.futures.Future))
        if any(isinstance(item, File | DataFuture) for item in found):
            self._stage_in(record)
            found = walk.futures_in(record["args"], record["kwargs"])
        record["depends"] = [item for item in found if isinstance(item, concurrent.futures.Future)]

    def _prepare_by_name(self, record: TaskRecord, kwargs: dict[str, Any]) -> None:
        future: CallFuture = record["app_fu"]
        for name in ("inputs", "outputs"):
            if name in kwargs:
                if not isinstance(kwargs[name], list | tuple):
                    raise TypeError(f"{name}={shown(kwargs[name])}: give a list")
                kwargs[name] = list(kwargs[name])
        walltime_s = kwargs.get("walltime")
        if isinstance(walltime_s, bool) or not isinstance(
            walltime_s, numbers.Real | concurrent.futures.Future | type(None)
        ):
            raise TypeError(f"walltime={shown(walltime_s)}: give seconds")
        if isinstance(walltime_s, numbers.Real) and not float(walltime_s) >= 0:
            raise ValueError(f"walltime={shown(walltime_s)}: give seconds, 0 or more")
        for file in kwargs.get("outputs", ()):
            if not isinstance(file, File):
                raise TypeError(f"outputs holds {shown(file)}: give Files, as in outputs=[File('result.txt')]")
        for name in ("stdout", "stderr"):
            if kwargs.get(name) is not None:
                self._prepare_stream(record, name)
        for i, file in enumerate(kwargs.get("outputs", ())):
            kwargs["outputs"][i] = file.cleancopy()
        future.outputs = record["outputs"] = [self._output(record, file) for file in kwargs.get("outputs", ())]

    def _prepare_stream(self, record: TaskRecord, name: str) -> None:
        future, kwargs = record["app_fu"], record["kwargs"]
        spec = kwargs[name]
        if isinstance(spec, int) and spec == AUTO_LOGNAME:
            spec = self._automatic(record, name)
            record["ignore_for_cache"].append(name)
        if isinstance(spec, File):
            file = spec.cleancopy()
            setattr(future, name, self._output(record, file))
            kwargs[name] = (file.filepath, "w")
            return
        path, mode = spec if isinstance(spec, tuple) and len(spec) == 2 else (spec, "")
        if not isinstance(path, str | os.PathLike) or not isinstance(mode, str):
            self._refuse_stream(record, name, spec)
            return
        kwargs[name] = spec if isinstance(spec, tuple) else os.fspath(spec)
        setattr(future, name, kwargs[name])

    def _refuse_stream(self, record: TaskRecord, name: str, spec: Any) -> None:  # noqa: ARG002
        raise TypeError(f"{name}={shown(spec)}: give a path, (path, mode), a File, or AUTO_LOGNAME")

    def _automatic(self, record: TaskRecord, name: str) -> Any:
        if self.config.std_autopath is not None:
            return self.config.std_autopath(record, name)
        number, label = record["id"], record["kwargs"].get("label") or record["label"]
        stem = f"task_{number:04d}_{record['func_name']}" + (f"_{label}" if label else "")
        folder = f"{number // 10000:04d}"
        return PrivatePath(os.path.join(self.run_dir, "task_logs", folder, f"{stem}.{name}"))  # noqa: PTH118

    def _output(self, record: TaskRecord, file: File) -> DataFuture:
        """The future of a file that the task makes; staging out included."""
        future: CallFuture = record["app_fu"]
        if file.is_glob:
            return FilesFuture(future, file, self._pool.submit)
        if file.scheme == "file":
            return DataFuture(future, file)
        provider = choose(self.staging, file, "out")
        moved = provider.stage_out(self._transfers, record["executor"], file, future)
        replaced = provider.replace_task_stage_out(self._transfers, record["executor"], file, record.callee)
        if replaced is not None:
            record.callee = replaced
        parent = moved if isinstance(moved, Future) else self.engine.adopt(moved) if moved is not None else future
        return DataFuture(parent, file)

    def _stage_in(self, record: TaskRecord) -> None:
        """Has remote files in the arguments brought in; a file that is there twice, once."""
        brought: dict[tuple[str, int], Any] = {}

        def bring(item: File | DataFuture) -> Any:
            file = item.file_obj if isinstance(item, DataFuture) else item
            if file.scheme == "file" or file.local_path is not None:
                return item
            parent = item.parent if isinstance(item, DataFuture) else None
            key = (file.url, id(parent))
            if key not in brought:
                brought[key] = self._bring(record, file.cleancopy(), parent)
            return brought[key]

        kwargs = record["kwargs"]
        kept = {name: kwargs[name] for name in ("stdout", "stderr", "outputs") if name in kwargs}
        rest = {name: value for name, value in kwargs.items() if name not in kept}
        record["args"], rest = walk.replace((record["args"], rest), (File, DataFuture), bring)
        record["kwargs"] = rest | kept

    def _bring(self, record: TaskRecord, file: File, parent: Future[Any] | None) -> Any:
        provider = choose(self.staging, file, "in")
        arrived = provider.stage_in(self._transfers, record["executor"], file, parent)
        replaced = provider.replace_task(self._transfers, record["executor"], file, record.callee)
        if replaced is not None:
            record.callee = replaced
        if arrived is None:
            return file if parent is None else DataFuture(parent, file)
        return DataFuture(arrived if isinstance(arrived, Future) else self.engine.adopt(arrived), file)
