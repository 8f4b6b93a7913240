"""Transfers by Globus, with a client that copies files."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from staging_helpers import FakeEngine

from mpitask.errors import ConfigurationError
from mpitask.files import File
from mpitask.staging import GlobusStaging, StagingError, globus


class Service:
    """Copies between collections, which are folders. What is asked of it is written down in a file."""

    def __init__(self, root: Path, ends_as: str = "SUCCEEDED", waits: int = 2) -> None:
        self.root, self.ends_as, self.waits = root, ends_as, waits

    def _note(self, text: str) -> None:
        with (self.root / "calls").open("a") as calls:
            calls.write(text + "\n")

    def get_submission_id(self) -> Mapping[str, Any]:
        return {"value": "submission-1"}

    def submit_transfer(self, data: dict[str, Any]) -> Mapping[str, Any]:
        assert data["DATA_TYPE"] == "transfer"
        assert data["submission_id"] == "submission-1"
        (item,) = data["DATA"]
        self._note(f"submit {data['source_endpoint']} {data['destination_endpoint']}")
        source = self.root / data["source_endpoint"] / item["source_path"].lstrip("/")
        target = self.root / data["destination_endpoint"] / item["destination_path"].lstrip("/")
        if not source.exists():
            raise RuntimeError("no such file on the collection")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        return {"task_id": "task-1"}

    def task_wait(self, task_id: str, timeout: int, polling_interval: int) -> bool:
        assert task_id == "task-1"
        assert timeout >= polling_interval >= 1
        self.waits -= 1
        return self.waits <= 0

    def get_task(self, task_id: str) -> Mapping[str, Any]:
        assert task_id == "task-1"
        return {"status": self.ends_as, "fatal_error": None, "nice_status": "PERMISSION_DENIED"}

    def cancel_task(self, task_id: str) -> None:
        self._note(f"cancel {task_id}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "far" / "data").mkdir(parents=True)
    (tmp_path / "far" / "data" / "in.txt").write_text("from afar")
    return tmp_path


def calls(root: Path) -> list[str]:
    return (root / "calls").read_text().splitlines()


def near(root: Path, **options: Any) -> GlobusStaging:
    """Our disk below `root/near` is the collection "near", which calls it /."""
    return GlobusStaging("near", "/", str(root / "near"), make_client=partial(Service, root), **options)


def test_in_and_out(root: Path) -> None:
    dm = FakeEngine(root / "near" / "work")
    try:
        staging = near(root)
        file = File("globus://far/data/in.txt")
        assert staging.can_stage_in(file)
        assert staging.can_stage_out(file)
        assert not staging.can_stage_in(File("x"))
        assert staging.stage_in(dm, "all", file, None).result(20) == f"{dm.working_dir}/in.txt"
        assert Path(file).read_text() == "from afar"
        assert [path.name for path in Path(dm.working_dir).iterdir()] == ["in.txt"]

        out, task = File("globus://far/results/out.txt"), Future[None]()
        future = staging.stage_out(dm, "all", out, task)
        Path(out).write_text("from here")
        task.set_result(None)
        future.result(20)
        assert (root / "far" / "results" / "out.txt").read_text() == "from here"
        assert calls(root) == ["submit far near", "submit near far"]
        assert dm.labels == ["stage in globus://far/data/in.txt", "stage out globus://far/results/out.txt"]
    finally:
        dm.close()


def fetch(root: Path, **client: Any) -> None:
    target = root / "near" / "work" / "in.txt"
    try:
        globus.fetch(
            "globus://far/data/in.txt",
            str(target),
            "near",
            "/work",
            timeout_s=client.pop("timeout_s", 60),
            make_client=partial(Service, root, **client),
        )
    finally:
        assert list(target.parent.iterdir()) == []


def test_failures(root: Path) -> None:
    with pytest.raises(StagingError, match=r"ended as FAILED: PERMISSION_DENIED; see app\.globus\.org"):
        fetch(root, ends_as="FAILED")
    with pytest.raises(StagingError, match=r"not done after 0\.01 s \(PERMISSION_DENIED\); give a longer timeout_s"):
        fetch(root, timeout_s=0.01, waits=10**9)
    assert calls(root)[-1] == "cancel task-1"
    (root / "far" / "data" / "in.txt").unlink()
    with pytest.raises(StagingError, match=r"globus://far/data/in\.txt failed: RuntimeError: no such file"):
        fetch(root)


def test_configuration(root: Path, dm: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="give both, or none"):
        GlobusStaging("near", "/")
    with pytest.raises(ConfigurationError, match="set working_dir to a folder there"):
        near(root).stage_in(dm, "all", File("globus://far/data/in.txt"), None)
    monkeypatch.setitem(sys.modules, "globus_sdk", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'mpitask\[globus\]'"):
        globus.default_client()


@pytest.mark.skipif(importlib.util.find_spec("globus_sdk") is None, reason="pip install globus-sdk")
def test_the_real_client_has_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOBUS_CLIENT_ID", "GLOBUS_CLIENT_SECRET", "GLOBUS_TRANSFER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="set GLOBUS_CLIENT_ID and GLOBUS_CLIENT_SECRET"):
        globus.default_client()
    monkeypatch.setenv("GLOBUS_TRANSFER_TOKEN", "token")
    client = globus.default_client()
    for name in ("get_submission_id", "submit_transfer", "task_wait", "get_task", "cancel_task"):
        assert callable(getattr(client, name))
