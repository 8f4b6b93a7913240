"""Files by fsspec: its memory, an S3 server, and a machine without fsspec."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from staging_helpers import FakeEngine

from mpitask.errors import ConfigurationError
from mpitask.files import File
from mpitask.staging import FsspecStaging, StagingError, fsspec_

needs_fsspec = pytest.mark.skipif(importlib.util.find_spec("fsspec") is None, reason="pip install fsspec")
QUICK = {"attempts": 3, "pause_s": 0.001}


@pytest.fixture
def memory() -> Iterator[Any]:
    system = importlib.import_module("fsspec").filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@needs_fsspec
def test_out_and_in(memory: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "w" / "target"
    source.write_bytes(b"data" * 1000)
    assert fsspec_.put(str(source), "memory://a/b.bin") == "memory://a/b.bin"
    assert memory.cat("/a/b.bin") == b"data" * 1000
    assert fsspec_.fetch("memory://a/b.bin", str(target)) == str(target)
    assert target.read_bytes() == b"data" * 1000
    assert list(target.parent.iterdir()) == [target]


@needs_fsspec
def test_permanent_errors(memory: Any, tmp_path: Path) -> None:
    memory.makedirs("/folder/x")
    target = tmp_path / "w" / "x"
    for url, text in {
        "memory://missing": "FileNotFoundError.*see whether the URL is right",
        "memory://folder": "IsADirectoryError.*this is a folder",
        "nonsense://x": "ValueError: Protocol not known: nonsense",
    }.items():
        with pytest.raises(StagingError, match=text) as caught:
            fsspec_.fetch(url, str(target), **QUICK)  # type: ignore[arg-type]
        assert "tried" not in str(caught.value)
        assert list(target.parent.iterdir()) == []
    with pytest.raises(StagingError, match="the task has not written"):
        fsspec_.put(str(target), "memory://x")


@needs_fsspec
def test_transient_errors(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/x", b"0123456789")
    troubles: list[BaseException] = [OSError(errno.EBUSY, "slow down"), TimeoutError("late")]
    get_file = type(memory).get_file

    def unreliable(system: Any, path: str, local: str, **options: Any) -> None:
        if troubles:
            raise troubles.pop()
        get_file(system, path, local, **options)

    def short(system: Any, path: str, local: str, **_: Any) -> None:
        Path(local).write_bytes(b"0123")

    target = tmp_path / "w" / "x"
    monkeypatch.setattr(type(memory), "get_file", unreliable)
    fsspec_.fetch("memory://x", str(target), **QUICK)  # type: ignore[arg-type]
    assert target.read_bytes() == b"0123456789"
    monkeypatch.setattr(type(memory), "get_file", short)
    with pytest.raises(StagingError, match=r"4 of 10 bytes came \(tried 3 times\)"):
        fsspec_.fetch("memory://x", str(target), **QUICK)  # type: ignore[arg-type]
    assert target.read_bytes() == b"0123456789"


@needs_fsspec
def test_provider(memory: Any, dm: FakeEngine) -> None:
    staging = FsspecStaging()
    file = File("memory://a/b.txt")
    task = Future[None]()
    out = staging.stage_out(dm, "all", file, task)
    Path(file).write_text("hello")
    assert not memory.exists("/a/b.txt")
    task.set_result(None)
    assert out.result(20) == file.url
    assert memory.cat("/a/b.txt") == b"hello"
    Path(file).unlink()
    again = file.cleancopy()
    assert staging.stage_in(dm, "all", again, out).result(20) == f"{dm.working_dir}/b.txt"
    assert Path(again).read_text() == "hello"
    assert dm.labels == ["stage out memory://a/b.txt", "stage in memory://a/b.txt"]


@needs_fsspec
def test_which_schemes() -> None:
    every, some = FsspecStaging(), FsspecStaging(["s3", "file"])
    for url in ("s3://b/k", "gs://b/k", "sftp://h/k", "memory://k"):
        assert every.can_stage_in(File(url))
        assert every.can_stage_out(File(url))
    for url in ("a", "http://h/k", "zip:/a.zip/b", "globus://u/k", "nonsense://k"):
        assert not every.can_stage_in(File(url))
    assert some.can_stage_in(File("a"))
    assert not some.can_stage_in(File("gs://b/k"))
    with pytest.raises(ConfigurationError, match=r"give a list, such as \['s3'\]"):
        FsspecStaging("s3")


def test_without_fsspec(dm: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    staging = FsspecStaging()
    assert staging.can_stage_in(File("s3://b/k"))
    assert not staging.can_stage_in(File("nonsense://k"))
    text = r"pip install 'mpitask\[fsspec\]'"
    for call in (
        lambda: staging.stage_in(dm, "all", File("s3://b/k"), None),
        lambda: staging.stage_out(dm, "all", File("s3://b/k"), Future()),
        lambda: fsspec_.fetch("s3://b/k", str(tmp_path / "x")),
        lambda: fsspec_.put(str(tmp_path / "x"), "s3://b/k"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            call()


# In a process of its own: the libraries for S3 start threads that never end.
S3 = """
import sys, threading, warnings
from pathlib import Path
from moto.server import ThreadedMotoServer
from mpitask.files import File
from mpitask.staging import FsspecStaging, StagingError, fsspec_
import fsspec

folder = Path(sys.argv[1])
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
options = {"endpoint_url": f"http://{host}:{port}", "key": "k", "secret": "s"}
fsspec.filesystem("s3", **options).mkdir("bucket")
data = bytes(range(256)) * 40_000
(folder / "out.bin").write_bytes(data)
fetch, put = FsspecStaging(options={"s3": options})._transfers["s3"]
put(str(folder / "out.bin"), "s3://bucket/a/b?#.bin")
fetch("s3://bucket/a/b?#.bin", str(folder / "in.bin"))
assert (folder / "in.bin").read_bytes() == data
for url in ("s3://bucket/missing", "s3://nowhere/x"):
    try:
        fetch(url, str(folder / "missing"))
    except StagingError as error:
        assert "FileNotFoundError" in str(error), error
    else:
        raise AssertionError("no error")
server.stop()
print(*sorted(path.name for path in folder.iterdir()))
"""


@needs_fsspec
def test_an_s3_server(tmp_path: Path) -> None:
    for name in ("s3fs", "moto", "flask"):
        if importlib.util.find_spec(name) is None:
            pytest.skip("pip install s3fs 'moto[s3]' flask flask-cors")
    environment = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        [sys.executable, "-c", S3, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "in.bin out.bin"
    assert threading.active_count() == 1
