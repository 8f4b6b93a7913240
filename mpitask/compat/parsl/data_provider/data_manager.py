"""`parsl.data_provider.data_manager`: what staging providers get, and which providers an executor's calls have."""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from mpitask.files import File
from mpitask.staging import DEFAULT_STAGING, NoOpFileStaging, Staging

if TYPE_CHECKING:
    from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel

default_staging = DEFAULT_STAGING

_label: contextvars.ContextVar[str | None] = contextvars.ContextVar("label", default=None)
"""The executor of the call that is being submitted; None: its files shall stay where they are."""


class DataManager:
    """What a staging provider may use.

    Attributes:
        dfk: the kernel.
    """

    def __init__(self, dfk: DataFlowKernel) -> None:
        self.dfk = dfk

    @property
    def working_dir(self) -> str:
        """The folder into which files are brought for the executor of the call that is being submitted."""
        folder = getattr(self.dfk.executors.get(_label.get() or ""), "working_dir", None)
        return os.fspath(folder) if folder is not None else os.path.join(self.dfk.run_dir, "files")  # noqa: PTH118

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, label: str, after: Future[Any] | None = None
    ) -> Future[Any]:
        """Runs `fn(*args)` as a task of the same executor once `after` has ended well."""
        return self.dfk.submit_transfer(fn, args, executor=_label.get(), name=label, after=after)


@contextlib.contextmanager
def staging_for(label: str | None) -> Iterator[None]:
    """In the block, files are those of a call for the executor with this label."""
    token = _label.set(label)
    try:
        yield
    finally:
        _label.reset(token)


class PlacedFile(File):
    """A file that keeps its place: an argument of the task that moves it."""

    @classmethod
    def of(cls, file: File) -> PlacedFile:
        """The same file."""
        placed = cls.__new__(cls)
        vars(placed).update(vars(file))
        return placed

    def cleancopy(self) -> Self:
        """Itself."""
        return self


class _Stay(Staging):
    """Takes every file and moves none."""

    def can_stage_in(self, file: File) -> bool:  # noqa: ARG002
        return True

    def can_stage_out(self, file: File) -> bool:  # noqa: ARG002
        return True


class _Managed(Staging):
    """A provider that is given this kernel's `DataManager`."""

    def __init__(self, provider: Staging, manager: DataManager) -> None:
        self.provider = provider
        self._manager: Any = manager

    def can_stage_in(self, file: File) -> bool:
        return self.provider.can_stage_in(file)

    def can_stage_out(self, file: File) -> bool:
        return self.provider.can_stage_out(file)

    def stage_in(self, dm: Any, executor: str, file: File, parent_fut: Future[Any] | None) -> Future[Any] | None:  # noqa: ARG002
        return self.provider.stage_in(self._manager, executor, file, parent_fut)

    def stage_out(self, dm: Any, executor: str, file: File, app_fu: Future[Any]) -> Future[Any] | None:  # noqa: ARG002
        return self.provider.stage_out(self._manager, executor, file, app_fu)

    def replace_task(self, dm: Any, executor: str, file: File, func: Callable[..., Any]) -> Callable[..., Any] | None:  # noqa: ARG002
        return self.provider.replace_task(self._manager, executor, file, func)

    def replace_task_stage_out(
        self,
        dm: Any,  # noqa: ARG002
        executor: str,
        file: File,
        func: Callable[..., Any],
    ) -> Callable[..., Any] | None:
        return self.provider.replace_task_stage_out(self._manager, executor, file, func)

    def __repr__(self) -> str:
        return repr(self.provider)


class Providers(Sequence[Staging]):
    """The staging providers of a kernel: those of the executor of the call that is being submitted."""

    def __init__(self, dfk: DataFlowKernel) -> None:
        self._dfk = dfk
        self._manager = DataManager(dfk)

    def _now(self) -> list[Staging]:
        label = _label.get()
        if label is None:
            return [_Stay()]
        given = getattr(self._dfk.executors.get(label), "storage_access", None)
        return [_Managed(provider, self._manager) for provider in (default_staging if given is None else given)]

    def __len__(self) -> int:
        return len(self._now())

    @overload
    def __getitem__(self, index: int) -> Staging: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Staging]: ...

    def __getitem__(self, index: int | slice) -> Staging | Sequence[Staging]:
        return self._now()[index]

    @property
    def may_move_files(self) -> bool:
        """Whether one of them may want to move files with a path of this machine."""
        return any(isinstance(known, _Managed) and type(known.provider) not in _LEAVING for known in self)

    def mover_of(self, file: File, direction: Literal["in", "out"]) -> Staging | None:
        """The provider that moves a file, if the first that takes it is one that moves any."""
        for known in self:
            if known.can_stage_in(file) if direction == "in" else known.can_stage_out(file):
                return known if isinstance(known, _Managed) and type(known.provider) not in _LEAVING else None
        return None


_LEAVING = frozenset({NoOpFileStaging, *map(type, default_staging)})
"""Providers that leave files with a path of this machine where they are."""
