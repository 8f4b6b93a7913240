"""What a staging provider is, and what it is given.

A provider decides by `can_stage_in` and `can_stage_out` which files are its own. For a file that a task needs, the
engine calls `stage_in`, then `replace_task`; for one that a task makes, `stage_out`, then `replace_task_stage_out`. A
provider moves the file in one of two ways:

- by a task of its own: `stage_in` returns the future of `dm.submit(...)`, for which the user's task then waits;
- inside the user's task: `replace_task` returns a function that moves the file and calls the user's one. Then nothing
  has to be shared between nodes.

Each file that a provider is given is a clean copy that it may change; it notes in `file.local_path` where the task will
find the file, or shall put it.
"""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from mpitask.files import File
from mpitask.staging.errors import StagingError
from mpitask.staging.transfer import redact

Function = Callable[..., Any]


class DataManager(Protocol):
    """What the engine offers to providers."""

    @property
    def working_dir(self) -> str:
        """The folder, on the machines that run tasks, into which files are brought."""

    def submit(self, fn: Function, /, *args: Any, label: str, after: Future[Any] | None = None) -> Future[Any]:
        """Runs `fn(*args)` as a task once `after` has ended well; if it fails, the future fails, too."""


class Staging:
    """The base class of staging providers. As it stands, it stages nothing."""

    def can_stage_in(self, file: File) -> bool:  # noqa: ARG002
        """Whether this provider brings in such files."""
        return False

    def can_stage_out(self, file: File) -> bool:  # noqa: ARG002
        """Whether this provider brings out such files."""
        return False

    def stage_in(
        self,
        dm: DataManager,  # noqa: ARG002
        executor: str,  # noqa: ARG002
        file: File,  # noqa: ARG002
        parent_fut: Future[Any] | None,  # noqa: ARG002
    ) -> Future[Any] | None:
        """Begins to bring a file in.

        Args:
            dm: runs tasks.
            executor: the label of the executor whose task needs the file.
            file: the file; its `local_path` is set.
            parent_fut: what must be done before the file exists; None when it exists already.

        Returns:
            The future of the transfer, or None when the task need not wait for one.
        """
        return None

    def stage_out(
        self,
        dm: DataManager,  # noqa: ARG002
        executor: str,  # noqa: ARG002
        file: File,  # noqa: ARG002
        app_fu: Future[Any],  # noqa: ARG002
    ) -> Future[Any] | None:
        """Arranges for a file to be brought out. Called before the task runs.

        Args:
            dm: runs tasks.
            executor: the label of the executor whose task makes the file.
            file: the file; its `local_path` is set, and the task writes there.
            app_fu: the future of that task.

        Returns:
            The future of the transfer, or None when the file is out as soon as the task has ended.
        """
        return None

    def replace_task(
        self,
        dm: DataManager,  # noqa: ARG002
        executor: str,  # noqa: ARG002
        file: File,  # noqa: ARG002
        func: Function,  # noqa: ARG002
    ) -> Function | None:
        """A function to be run in place of `func`, which brings the file in first; None to leave `func` as it is."""
        return None

    def replace_task_stage_out(
        self,
        dm: DataManager,  # noqa: ARG002
        executor: str,  # noqa: ARG002
        file: File,  # noqa: ARG002
        func: Function,  # noqa: ARG002
    ) -> Function | None:
        """A function to be run in place of `func`, which brings the file out at the end; None to leave `func`."""
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class NoOpFileStaging(Staging):
    """Local paths and file: URLs lie where all nodes see them: nothing is moved."""

    def can_stage_in(self, file: File) -> bool:
        """True for local paths and file: URLs."""
        return file.scheme == "file"

    def can_stage_out(self, file: File) -> bool:
        """True for local paths and file: URLs."""
        return file.scheme == "file"


class Staged:
    """A function with transfers around it. Can be pickled when the function and the transfers can be.

    Args:
        func: the user's function.
        before: called before it, in order, without arguments.
        after: called after it, unless it raised.
    """

    def __init__(self, func: Function, *, before: Sequence[Function] = (), after: Sequence[Function] = ()) -> None:
        self.__wrapped__ = func
        self.__name__ = getattr(func, "__name__", type(func).__name__)
        self.__doc__ = getattr(func, "__doc__", None)
        self._before = tuple(before)
        self._after = tuple(after)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - as the function's own
        for transfer in self._before:
            transfer()
        value = self.__wrapped__(*args, **kwargs)
        for transfer in self._after:
            transfer()
        return value


class FetchStaging(Staging):
    """The common part of providers that bring files in by one function; see `SeparateTask` and `InTask`.

    Args:
        schemes: what it brings in.
        fetch: called with a URL and a local path.
    """

    def __init__(self, schemes: Collection[str], fetch: Function) -> None:
        self._schemes = frozenset(schemes)
        self._fetch = fetch

    def can_stage_in(self, file: File) -> bool:
        """True for the schemes of this provider."""
        return file.scheme in self._schemes


class SeparateTask(FetchStaging):
    """Brings each file in by a task of its own, into a folder that all nodes share."""

    def stage_in(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        parent_fut: Future[Any] | None,
    ) -> Future[Any]:
        """Submits the transfer.

        Raises:
            StagingError: the URL names a folder.
        """
        label = f"stage in {redact(file.url)}"
        return dm.submit(self._fetch, file.url, give_place(dm, file), label=label, after=parent_fut)


class InTask(FetchStaging):
    """Brings each file in inside the task that needs it."""

    def stage_in(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        parent_fut: Future[Any] | None,  # noqa: ARG002
    ) -> None:
        """Only sets the local path.

        Raises:
            StagingError: the URL names a folder.
        """
        give_place(dm, file)

    def replace_task(self, dm: DataManager, executor: str, file: File, func: Function) -> Function:  # noqa: ARG002
        """The function with the transfer before it.

        Raises:
            StagingError: the URL names a folder.
        """
        return Staged(func, before=[partial(self._fetch, file.url, give_place(dm, file))])


class Claims:
    """Which URL each local path is for, so that two files of one name do not end up in each other's place.

    May be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[str, int] = {}

    def place(self, folder: str, filename: str, url: str) -> str:
        """`folder/filename`; or, when that is another URL's, the same name in a folder of its own below."""
        path = posixpath.join(folder, filename)
        owner = int.from_bytes(hashlib.sha256(url.encode()).digest()[:8], "big")
        with self._lock:
            if self._owners.setdefault(path, owner) == owner:
                return path
        return posixpath.join(folder, f"{owner:016x}", filename)


_claims = Claims()  # for the whole process: the paths are names in the file system, which is shared as well


def give_place(dm: DataManager, file: File) -> str:
    """Sets `file.local_path` to `working_dir/filename` and returns it.

    When another URL of this process has the same file name, the file gets a folder of its own below `working_dir`.

    Raises:
        StagingError: the URL names a folder.
    """
    if file.filename in ("", ".", ".."):
        raise StagingError(redact(file.url), "the URL does not end with the name of a file", "give the URL of one file")
    file.local_path = _claims.place(dm.working_dir, file.filename, file.url)
    return file.local_path


def make_folder(local_path: str) -> None:
    """Makes the folder into which a task shall write; where that is impossible, the task will say so itself."""
    with contextlib.suppress(OSError):
        Path(local_path).parent.mkdir(parents=True, exist_ok=True)


def choose(providers: Sequence[Staging], file: File, direction: Literal["in", "out"]) -> Staging:
    """The first provider that stages the file in this direction.

    Raises:
        ValueError: there is none; the message lists those that were asked.
    """
    for provider in providers:
        if provider.can_stage_in(file) if direction == "in" else provider.can_stage_out(file):
            return provider
    asked = ", ".join(map(repr, providers)) or "none"
    raise ValueError(f"no staging provider for {redact(file.url)} (stage {direction}); configured: {asked}")
