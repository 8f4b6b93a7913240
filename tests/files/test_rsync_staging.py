"""Copies by rsync: to and from paths of this machine, and by a stand-in for ssh that stays on it."""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from pathlib import Path

import pytest
from staging_helpers import FakeEngine

from mpitask.errors import ConfigurationError
from mpitask.files import File
from mpitask.staging import RSyncStaging, StagingError, rsync

needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="there is no program rsync")
QUICK = {"attempts": 2, "pause_s": 0.001}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "far" / "a b$*.txt"
    path.parent.mkdir()
    path.write_text("hello")
    return path


@needs_rsync
def test_local_copies(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "w" / "copy"
    assert rsync.fetch(str(source), str(target)) == str(target)
    assert target.read_text() == "hello"
    assert list(target.parent.iterdir()) == [target]
    target.write_text("changed")
    assert rsync.put(str(target), str(source)) == str(source)
    assert source.read_text() == "changed"


@needs_rsync
def test_errors(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "w" / "copy"
    with pytest.raises(StagingError, match=r"status 23: .*No such file .*; see whether the path is right") as caught:
        rsync.fetch(str(source) + "x", str(target), **QUICK)  # type: ignore[arg-type]
    assert "tried" not in str(caught.value)
    with pytest.raises(StagingError, match="the task has not written"):
        rsync.put(str(target), str(source))
    monkeypatch.setenv("RSYNC_RSH", "/bin/false")
    with pytest.raises(StagingError, match=r"status 12.*\(tried 2 times\)|status 1.*"):
        rsync.fetch("host:/x", str(target), **QUICK)  # type: ignore[arg-type]
    assert list(target.parent.iterdir()) == []


def test_without_rsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StagingError, match="no program rsync on this node; install rsync"):
        rsync.fetch("host:/x", str(tmp_path / "y"))


def shout(source: File, target: File) -> str:
    text = Path(source).read_text().upper()
    Path(target).write_text(text)
    return text


@needs_rsync
def test_provider(source: Path, tmp_path: Path, dm: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/hosts\nshift\nexec "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("RSYNC_RSH", str(ssh))
    monkeypatch.chdir(source.parent)
    staging = RSyncStaging("far-host", attempts=1)
    file, out = File(source.name), File("out.txt")
    assert staging.can_stage_in(file)
    assert staging.can_stage_out(out)
    assert not staging.can_stage_in(File("http://h/x"))
    assert staging.stage_in(dm, "all", file, None) is None
    assert staging.stage_out(dm, "all", out, Future()) is None
    assert file.filepath == f"{dm.working_dir}/{source.name}"
    func = staging.replace_task(dm, "all", file, shout)
    func = staging.replace_task_stage_out(dm, "all", out, func)
    assert dm.run(func, file, out) == "HELLO"
    assert (source.parent / "out.txt").read_text() == "HELLO"
    assert (tmp_path / "hosts").read_text() == "far-host\nfar-host\n"


def test_hostnames() -> None:
    for name in ("", "-oProxyCommand=x", "a/b"):
        with pytest.raises(ConfigurationError, match="give a host as ssh takes it"):
            RSyncStaging(name)
