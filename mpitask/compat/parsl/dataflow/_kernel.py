"""mpitask's kernel, with what Parsl promises beyond it: who failed, where output goes, and staging of local files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import mpitask
from mpitask import errors
from mpitask.compat.parsl._options import wrong_type
from mpitask.compat.parsl._pools import Local, Refusal
from mpitask.compat.parsl.data_provider.data_manager import Providers
from mpitask.dataflow import Kernel, TaskRecord, walk
from mpitask.engine import Engine
from mpitask.errors import WorkerLost
from mpitask.files import File
from mpitask.futures import DataFuture
from mpitask.worker.call import BashCall


class DependencyError(errors.DependencyError):
    """A DependencyError that knows the arguments of its call that have failed, each with its own exception."""

    failures: list[tuple[BaseException, str]]

    @property
    def dependent_exceptions_tids(self) -> list[tuple[BaseException, str]]:
        """The exceptions of the arguments that have failed, each with the name of its task or future."""
        return self.failures

    def __reduce__(self) -> Any:
        return _rebuild, (self.args, self.failures)

    def __str__(self) -> str:
        told = super().__str__()
        foreign = [name for _, name in self.failures if name.startswith("<")]
        return f"{told} (of the arguments that have failed: {', '.join(foreign)})" if foreign else told


def _rebuild(args: tuple[Any, ...], failures: list[tuple[BaseException, str]]) -> DependencyError:
    error = DependencyError(*args)
    error.failures = failures
    return error


def with_failures(error: errors.DependencyError, depends: Sequence[Future[Any]]) -> errors.DependencyError:
    """The error of a call that was not run, with the failures of all futures in its arguments."""
    failures = [failure for future in depends for failure in _failure_of(future)]
    if not failures:
        return error
    root = failures[0][0]
    while isinstance(root, errors.DependencyError):
        root = root.root
    return _rebuild((error.task, error.via, error.cause, root, error.names), failures)


def has_left(error: BaseException) -> bool:
    """Whether a function has called `sys.exit`, which ends a worker of Parsl's."""
    return isinstance(error, SystemExit) or (isinstance(error, errors.TaskExit) and error.kind == "SystemExit")


def as_lost(error: Any, number: int, name: str | None) -> WorkerLost:
    """What a call ends with whose function has left."""
    code = error.code if isinstance(error.code, int) else error.code is not None
    lost = WorkerLost(number, "", 0, (int(code) & 0xFF) << 8, "worker", name)
    lost.__cause__ = error
    return lost


class ParslKernel(Kernel):
    """The kernel behind a `DataFlowKernel`."""

    staging: Providers

    # -- failures --

    def _failed_attempt(self, record: TaskRecord, error: BaseException) -> None:
        if has_left(error) and record["pool"] is None:
            error = as_lost(error, record["id"], str(record["func_name"]))
        super()._failed_attempt(record, error)

    def _fail(self, record: TaskRecord, error: BaseException, state: str = "failed") -> None:
        if state == "dep_fail" and isinstance(error, errors.DependencyError):
            error = with_failures(error, record["depends"])
        super()._fail(record, error, state)

    # -- output --

    def _prepare_stream(self, record: TaskRecord, name: str) -> None:
        given = record["kwargs"][name]
        super()._prepare_stream(record, name)
        given = record.pop(f"automatic_{name}", given)
        if isinstance(given, os.PathLike) and not isinstance(given, File):
            setattr(record["app_fu"], name, given)  # the very object

    def _refuse_stream(self, record: TaskRecord, name: str, spec: Any) -> None:
        """It is the future that fails, if the call's output would go there at all."""
        setattr(record["app_fu"], name, spec)
        in_thread = isinstance(record["pool"], Local) and not isinstance(record.callee, BashCall)
        if record["kind"] != "join" and not in_thread:
            text = f"{name}={errors.shown(spec)}: give a path, (path, mode), a File, or AUTO_LOGNAME"
            record["pool"] = Refusal(wrong_type(text))

    def _automatic(self, record: TaskRecord, name: str) -> Any:
        record[f"automatic_{name}"] = found = super()._automatic(record, name)
        return found

    # -- staging of files that mpitask takes to be where they are needed --

    def _output(self, record: TaskRecord, file: File) -> DataFuture:
        if file.scheme != "file" or file.is_glob or not (provider := self.staging.mover_of(file, "out")):
            return super()._output(record, file)
        future = record["app_fu"]
        moved = provider.stage_out(self._transfers, record["executor"], file, future)
        replaced = provider.replace_task_stage_out(self._transfers, record["executor"], file, record.callee)
        if replaced is not None:
            record.callee = replaced
        if moved is None:
            return DataFuture(future, file)
        return DataFuture(moved if isinstance(moved, mpitask.Future) else self.engine.adopt(moved), file)

    def _stage_in(self, record: TaskRecord) -> None:
        if self.staging.may_move_files:
            self._stage_in_files(record)
        super()._stage_in(record)

    def _stage_in_files(self, record: TaskRecord) -> None:
        brought: dict[tuple[str, int], Any] = {}

        def bring(item: File | DataFuture) -> Any:
            file = item.file_obj if isinstance(item, DataFuture) else item
            if file.scheme != "file" or file.local_path is not None or not self.staging.mover_of(file, "in"):
                return item
            parent = item.parent if isinstance(item, DataFuture) else None
            key = file.url, id(parent)
            if key not in brought:
                brought[key] = self._bring(record, file.cleancopy(), parent)
            return brought[key]

        kwargs = record["kwargs"]
        kept = {name: kwargs[name] for name in ("stdout", "stderr", "outputs") if name in kwargs}
        rest = {name: value for name, value in kwargs.items() if name not in kept}
        record["args"], rest = walk.replace((record["args"], rest), (File, DataFuture), bring)
        record["kwargs"] = rest | kept


def _failure_of(future: Future[Any]) -> list[tuple[BaseException, str]]:
    """The exception of a future that has failed already, and its name."""
    error: BaseException | None = None
    if future.done():
        with contextlib.suppress(TimeoutError):
            try:
                error = future.exception(timeout=0)
            except BaseException as raised:  # noqa: BLE001 - cancelled
                error = raised
    if error is None:
        return []
    return [(error, f"task {future.tid}" if hasattr(future, "tid") else repr(future))]


def kernel_on(engine: Engine, *, own: bool) -> ParslKernel:
    """A kernel on an engine; as its `own` one, apps of mpitask's other face use it, too."""
    kernel = ParslKernel(engine)
    if own:
        with engine.extension_lock:
            engine.extension = kernel
    return kernel
