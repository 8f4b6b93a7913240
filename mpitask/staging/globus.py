"""Files on Globus collections, in and out: `globus://<collection's UUID>/path`.

globus-sdk is an optional extra. The process that runs the transfer proves who it is by the environment:
GLOBUS_CLIENT_ID and GLOBUS_CLIENT_SECRET (a service account), or GLOBUS_TRANSFER_TOKEN (an access token, which ends
after two days).
"""

from __future__ import annotations

import importlib
import os
import posixpath
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mpitask.errors import ConfigurationError
from mpitask.files import File
from mpitask.staging.base import DataManager, Staging, give_place, make_folder
from mpitask.staging.transfer import Failure, download, persist

_POLL_S = 15
_A_DAY_S = 86400.0
_LABEL = "mpitask staging"


class TransferClient(Protocol):
    """The part of globus_sdk.TransferClient that is used."""

    def get_submission_id(self) -> Mapping[str, Any]:
        """A mark by which the service knows a request that is sent twice."""

    def submit_transfer(self, data: dict[str, Any]) -> Mapping[str, Any]:
        """Begins a transfer."""

    def task_wait(self, task_id: str, timeout: int, polling_interval: int) -> bool:
        """Waits; whether the transfer has ended."""

    def get_task(self, task_id: str) -> Mapping[str, Any]:
        """The state of a transfer."""

    def cancel_task(self, task_id: str) -> object:
        """Ends a transfer."""


def default_client() -> TransferClient:
    """A client for the credentials of the environment.

    Raises:
        ConfigurationError: globus-sdk is not installed, or the environment has no credentials.
    """
    try:
        sdk: Any = importlib.import_module("globus_sdk")
    except ImportError as error:
        raise ConfigurationError(
            f"globus_sdk cannot be imported ({error}): run pip install 'mpitask[globus]' in the environment of this "
            "process"
        ) from error
    identity, secret = os.environ.get("GLOBUS_CLIENT_ID"), os.environ.get("GLOBUS_CLIENT_SECRET")
    if identity and secret:
        application = sdk.ConfidentialAppAuthClient(identity, secret)
        scope = "urn:globus:auth:scope:transfer.api.globus.org:all"
        authorizer = sdk.ClientCredentialsAuthorizer(application, scope)
    elif token := os.environ.get("GLOBUS_TRANSFER_TOKEN"):
        authorizer = sdk.AccessTokenAuthorizer(token)
    else:
        raise ConfigurationError(
            "no credentials for Globus: set GLOBUS_CLIENT_ID and GLOBUS_CLIENT_SECRET, or GLOBUS_TRANSFER_TOKEN, in "
            "the environment of the job"
        )
    client: TransferClient = sdk.TransferClient(authorizer=authorizer)
    return client


def transfer(
    source_endpoint: str,
    source_path: str,
    target_endpoint: str,
    target_path: str,
    *,
    timeout_s: float = _A_DAY_S,
    make_client: Callable[[], TransferClient] = default_client,
) -> None:
    """Has Globus copy one file, and waits for it; runs on a worker.

    Globus itself tries again after transient errors, until `timeout_s` is over.

    Args:
        source_endpoint: UUID of the collection that has the file.
        source_path: its path there.
        target_endpoint: UUID of the collection that shall have it.
        target_path: its path there.
        timeout_s: how long it may take, in seconds; it is then cancelled.
        make_client: gives the client; must be something that can be pickled.

    Raises:
        ConfigurationError: globus-sdk or credentials are missing.
        StagingError: the transfer failed, or was not done in time.
    """

    def once() -> None:
        _transfer((source_endpoint, source_path), (target_endpoint, target_path), timeout_s, make_client)

    persist(f"globus://{source_endpoint}{source_path}", once, attempts=1, pause_s=0)


def fetch(
    url: str,
    local_path: str,
    endpoint: str,
    endpoint_path: str,
    *,
    timeout_s: float = _A_DAY_S,
    make_client: Callable[[], TransferClient] = default_client,
) -> str:
    """Brings a file to this machine; runs on a worker.

    Args:
        url: `globus://<UUID>/path`.
        local_path: where to; replaced in one step.
        endpoint: UUID of the collection that shows this machine's disk.
        endpoint_path: how that collection calls the folder of `local_path`.
        timeout_s: as for `transfer`.
        make_client: as for `transfer`.

    Returns:
        `local_path`.

    Raises:
        ConfigurationError: globus-sdk or credentials are missing.
        StagingError: the transfer failed, or was not done in time; nothing of it is left.
    """
    file = File(url)

    def write(temporary: Path) -> None:
        target = posixpath.join(endpoint_path, temporary.name)
        _transfer((file.netloc, file.path), (endpoint, target), timeout_s, make_client)

    return download(url, local_path, write, attempts=1, pause_s=0)


def _transfer(
    source: tuple[str, str], target: tuple[str, str], timeout_s: float, make_client: Callable[[], TransferClient]
) -> None:
    client = make_client()
    try:
        task = _submit_and_wait(client, source, target, timeout_s)
    except Failure:
        raise
    except Exception as error:  # of the SDK, which tries again by itself
        raise Failure(f"{type(error).__name__}: {error}", "see to the collections and the credentials") from error
    if task["status"] != "SUCCEEDED":
        fatal = task.get("fatal_error") or {}
        what = (
            fatal.get("description") or task.get("nice_status_details") or task.get("nice_status") or "no reason given"
        )
        raise Failure(f"the transfer ended as {task['status']}: {what}", "see app.globus.org/activity for its events")


def _submit_and_wait(
    client: TransferClient, source: tuple[str, str], target: tuple[str, str], timeout_s: float
) -> Mapping[str, Any]:
    request = {
        "DATA_TYPE": "transfer",
        "submission_id": client.get_submission_id()["value"],
        "label": _LABEL,
        "source_endpoint": source[0],
        "destination_endpoint": target[0],
        "verify_checksum": True,
        "DATA": [{"DATA_TYPE": "transfer_item", "source_path": source[1], "destination_path": target[1]}],
    }
    task_id = str(client.submit_transfer(request)["task_id"])
    deadline = time.monotonic() + timeout_s
    done = False
    try:
        while not done and (left_s := deadline - time.monotonic()) > 0:
            done = client.task_wait(task_id, timeout=max(1, min(_POLL_S, int(left_s))), polling_interval=1)
    finally:
        if not done:
            client.cancel_task(task_id)
    if not done:
        details = client.get_task(task_id).get("nice_status") or "no reason given"
        raise Failure(
            f"not done after {timeout_s:g} s ({details})", "give a longer timeout_s, or see to the collections"
        )
    return client.get_task(task_id)


class GlobusStaging(Staging):
    """Moves files between Globus collections and a folder that all nodes share, each by a task of its own.

    Args:
        endpoint_uuid: the collection that shows the nodes' disk.
        endpoint_path: a folder as this collection calls it.
        local_path: the same folder as the nodes call it; give both or none (then both call all folders alike).
        timeout_s: how long a transfer may take, in seconds.
        make_client: gives the client; must be something that can be pickled.

    Raises:
        ConfigurationError: one of the two paths is missing.
    """

    def __init__(
        self,
        endpoint_uuid: str,
        endpoint_path: str | None = None,
        local_path: str | None = None,
        *,
        timeout_s: float = _A_DAY_S,
        make_client: Callable[[], TransferClient] = default_client,
    ) -> None:
        if (endpoint_path is None) != (local_path is None):
            raise ConfigurationError("endpoint_path and local_path name one folder twice: give both, or none")
        self._endpoint = endpoint_uuid
        self._endpoint_path = endpoint_path or "/"
        self._local_path = local_path or "/"
        self._fetch = partial(fetch, timeout_s=timeout_s, make_client=make_client)
        self._transfer = partial(transfer, timeout_s=timeout_s, make_client=make_client)

    def can_stage_in(self, file: File) -> bool:
        """True for globus: URLs."""
        return file.scheme == "globus"

    def can_stage_out(self, file: File) -> bool:
        """True for globus: URLs."""
        return file.scheme == "globus"

    def stage_in(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        parent_fut: Future[Any] | None,
    ) -> Future[Any]:
        """Submits the transfer.

        Raises:
            ConfigurationError: `working_dir` does not lie in `local_path`.
            StagingError: the URL names a folder.
        """
        local_path = give_place(dm, file)
        folder = self._seen_by_globus(Path(local_path).parent)
        label = f"stage in {file.url}"
        return dm.submit(self._fetch, file.url, local_path, self._endpoint, folder, label=label, after=parent_fut)

    def stage_out(
        self,
        dm: DataManager,
        executor: str,  # noqa: ARG002
        file: File,
        app_fu: Future[Any],
    ) -> Future[Any]:
        """Submits the transfer, to be run after the task.

        Raises:
            ConfigurationError: `working_dir` does not lie in `local_path`.
            StagingError: the URL names a folder.
        """
        local_path = give_place(dm, file)
        make_folder(local_path)
        source = self._seen_by_globus(Path(local_path))
        label = f"stage out {file.url}"
        return dm.submit(self._transfer, self._endpoint, source, file.netloc, file.path, label=label, after=app_fu)

    def _seen_by_globus(self, local: Path) -> str:
        try:
            inside = local.absolute().relative_to(Path(self._local_path).absolute())
        except ValueError as error:
            raise ConfigurationError(
                f"{local} does not lie in local_path={self._local_path!r}: set working_dir to a folder there"
            ) from error
        return posixpath.join(self._endpoint_path, inside.as_posix())

    def __repr__(self) -> str:
        return f"GlobusStaging({self._endpoint!r})"
