"""Local paths of another machine, in and out, by the program rsync over ssh, inside the user's task.

The machine is usually the one on which the script runs, when its disks are not shared with the nodes. ssh must get
there from every node without asking for anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from mpitask.errors import ConfigurationError
from mpitask.files import File
from mpitask.staging.base import DataManager, Function, Staged, Staging, give_place, make_folder
from mpitask.staging.transfer import ATTEMPTS, PAUSE_S, TIMEOUT_S, Failure, check_limits, download, persist

_TRANSIENT = frozenset({10, 12, 30, 35, 255})  # socket, stream, two time-outs; ssh's own failure
_REFUSED = ("Permission denied", "Host key verification failed", "Could not resolve hostname")
_QUOTED_CHARACTERS = 500


def fetch(
    source: str, local_path: str, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS, pause_s: float = PAUSE_S
) -> str:
    """Copies a file to this machine; runs on a worker.

    Args:
        source: `host:/path`, `user@host:/path`, or a path of this machine.
        local_path: where to; replaced in one step.
        timeout_s: how long the other side may be silent, in seconds.
        attempts: how often it is tried.
        pause_s: the pause before the second try, in seconds; it doubles each time, up to 30 s.

    Returns:
        `local_path`.

    Raises:
        StagingError: it did not succeed, or there is no rsync; nothing of it is left.
        ConfigurationError: a limit is out of its range.
    """
    check_limits(attempts, pause_s, timeout_s)

    def write(temporary: Path) -> None:
        _rsync(["--inplace", "--", source, str(temporary.absolute())], timeout_s)  # it is temporary already

    return download(source, local_path, write, attempts=attempts, pause_s=pause_s)


def put(
    local_path: str, target: str, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS, pause_s: float = PAUSE_S
) -> str:
    """Copies a file of this machine to another; it appears there in one step. Runs on a worker.

    Args:
        local_path: the file.
        target: where to, as the source of `fetch`; its folder exists.
        timeout_s: as for `fetch`.
        attempts: as for `fetch`.
        pause_s: as for `fetch`.

    Returns:
        `target`.

    Raises:
        StagingError: it did not succeed, or there is no rsync.
        ConfigurationError: a limit is out of its range.
    """
    check_limits(attempts, pause_s, timeout_s)

    def send() -> None:
        if not Path(local_path).is_file():
            raise Failure(f"the task has not written {local_path}", "let it write to the path of its output File")
        _rsync(["--", str(Path(local_path).absolute()), target], timeout_s)

    persist(target, send, attempts=attempts, pause_s=pause_s)
    return target


def _rsync(words: list[str], timeout_s: float) -> None:
    """Runs rsync. It never asks for a password, and ends with its parent where the system has setpriv."""
    seconds = max(1, round(timeout_s))
    command = ["rsync", "--protect-args", "--copy-links", "--times", "--perms", f"--timeout={seconds}"]
    if "RSYNC_RSH" not in os.environ:
        command.append(f"--rsh=ssh -o BatchMode=yes -o ConnectTimeout={seconds}")
    command += words
    if not shutil.which("rsync"):
        raise Failure("there is no program rsync on this node", "install rsync, or choose another staging provider")
    if guard := shutil.which("setpriv"):
        command = [guard, "--pdeathsig", "TERM", *command]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[:_QUOTED_CHARACTERS]
        transient = done.returncode in _TRANSIENT and not any(word in said for word in _REFUSED)
        raise Failure(
            f"rsync ended with status {done.returncode}: {said}",
            "see whether the path is right, and ssh gets there from the node without a password",
            transient=transient,
        )


class RSyncStaging(Staging):
    """Copies local paths and file: URLs from and to one machine inside the task: nodes need not share a folder with it.

    Args:
        hostname: where the files are, as ssh takes it: `host` or `user@host`.
        timeout_s: how long the other side may be silent, in seconds.
        attempts: how often a transfer is tried.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    def __init__(self, hostname: str, *, timeout_s: float = TIMEOUT_S, attempts: int = ATTEMPTS) -> None:
        check_limits(attempts, PAUSE_S, timeout_s)
        if not hostname or hostname.startswith("-") or "/" in hostname:
            raise ConfigurationError(f"hostname={hostname!r}: give a host as ssh takes it, such as 'user@host'")
        self._hostname = hostname
        self._fetch = partial(fetch, timeout_s=timeout_s, attempts=attempts)
        self._put = partial(put, timeout_s=timeout_s, attempts=attempts)

    def can_stage_in(self, file: File) -> bool:
        """True for local paths and file: URLs."""
        return file.scheme == "file"

    def can_stage_out(self, file: File) -> bool:
        """True for local paths and file: URLs."""
        return file.scheme == "file"

    def stage_in(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        parent_fut: Future[Any] | None,  # noqa: ARG002
    ) -> None:
        """Sets the local path, and makes the other one absolute: here is where it may be relative to."""
        self._prepare(dm, file)

    def stage_out(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        app_fu: Future[Any],  # noqa: ARG002
    ) -> None:
        """Does what `stage_in` does."""
        self._prepare(dm, file)

    def replace_task(self, dm: DataManager, executor: str, file: File, func: Function) -> Function:  # noqa: ARG002
        """The function with the copying before it."""
        return Staged(func, before=[partial(self._fetch, *self._prepare(dm, file))])

    def replace_task_stage_out(self, dm: DataManager, executor: str, file: File, func: Function) -> Function:  # noqa: ARG002
        """The function with the copying behind it."""
        remote, local_path = self._prepare(dm, file)
        return Staged(func, before=[partial(make_folder, local_path)], after=[partial(self._put, local_path, remote)])

    def _prepare(self, dm: DataManager, file: File) -> tuple[str, str]:
        file.path = str(Path(file.path).absolute())
        return f"{self._hostname}:{file.path}", give_place(dm, file)

    def __repr__(self) -> str:
        return f"RSyncStaging({self._hostname!r})"
