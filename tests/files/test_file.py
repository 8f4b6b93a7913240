"""What a File is made of, and what it stands for."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mpitask.files import File


@pytest.mark.parametrize(
    ("url", "scheme", "netloc", "path", "filename"),
    [
        ("a/b.txt", "file", "", "a/b.txt", "b.txt"),
        ("/a/what?#50%20.txt", "file", "", "/a/what?#50%20.txt", "what?#50%20.txt"),
        ("run:1.csv", "file", "", "run:1.csv", "run:1.csv"),
        ("file:/a/b", "file", "", "/a/b", "b"),
        ("file:b", "file", "", "b", "b"),
        ("file:///a/b%20c", "file", "", "/a/b c", "b c"),
        ("file://localhost/a#b", "file", "localhost", "/a#b", "a#b"),
        ("HTTPS://u:p@host:8/a/b.txt?x=/y#z", "https", "u:p@host:8", "/a/b.txt", "b.txt"),
        ("http://host?x", "http", "host", "", ""),
        ("s3://bucket/key?#", "s3", "bucket", "/key?#", "key?#"),
        ("ftp://h/a%20b", "ftp", "h", "/a%20b", "a%20b"),
        ("zip:/a/b.zip/c", "zip", "", "/a/b.zip/c", "c"),
        ("zip:b.zip/c", "zip", "", "b.zip/c", "c"),
        ("globus://uuid/~/x", "globus", "uuid", "/~/x", "x"),
    ],
)
def test_parts(url: str, scheme: str, netloc: str, path: str, filename: str) -> None:
    file = File(url)
    assert (file.url, file.scheme, file.netloc, file.path, file.filename) == (url, scheme, netloc, path, filename)
    assert file.local_path is None


def test_a_path_object_is_never_a_url(tmp_path: Path) -> None:
    odd = tmp_path / "http:" / "x"
    assert File(odd).filepath == str(odd)
    assert File(odd.relative_to(tmp_path)).scheme == "file"
    assert File((tmp_path / "ä b").as_uri()).filepath == str(tmp_path / "ä b")


def test_where_it_is() -> None:
    local, remote = File("a.txt"), File("http://host/a.txt")
    assert local.filepath == os.fspath(local) == str(local) == "a.txt"
    with pytest.raises(ValueError, match=r"no local path yet: pass it to an app .* or set its local_path"):
        os.fspath(remote)
    assert str(remote) == "http://host/a.txt"
    remote.local_path = "/w/a.txt"
    assert remote.filepath == os.fspath(remote) == str(remote) == "/w/a.txt"
    clean = remote.cleancopy()
    assert clean.url == remote.url
    assert clean.local_path is None
    assert repr(remote) == "<File 'http://host/a.txt' at '/w/a.txt'>"
    assert repr(clean) == "<File 'http://host/a.txt'>"


def test_open_takes_it(tmp_path: Path) -> None:
    file = File(tmp_path / "x")
    Path(file).write_text("hello")
    with open(file) as opened:  # noqa: PTH123
        assert opened.read() == "hello"


def test_files_of_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Node7.Cluster.example")
    monkeypatch.setattr("socket.getfqdn", lambda: "node7.elsewhere.example")
    for host in (
        "localhost",
        "LOCALHOST",
        "node7",
        "Node7.cluster.example",
        "node7.elsewhere.example",
        "127.0.0.1",
        "[::1]",
    ):
        assert File(f"file://{host}/a%20b").filepath == "/a b"
    here = pickle.dumps(File("file://node7/a"))
    for host in ("otherhost", "node8.cluster.example", "u@node7", "10.0.0.1"):
        with pytest.raises(ValueError, match=r"is a file of the host .*write 'file:/a' for the file of that path here"):
            File(f"file://{host}/a")
    monkeypatch.setattr("socket.gethostname", lambda: "node8")
    assert pickle.loads(here).filepath == "/a"  # a worker's machine has another name


def test_copies_are_other_files() -> None:
    file = File("http://host/a")
    file.local_path = "b"
    for other in (pickle.loads(pickle.dumps(file)), copy.deepcopy(file)):
        assert vars(other) == vars(file)
        assert other != file
    assert len({file, file.cleancopy(), file}) == 2

    class Mine(File):
        pass

    assert type(Mine("a").cleancopy()) is Mine


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="not a int"):
        File(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"write 'file:data\.csv', or the path alone"):
        File("file://data.csv")


def test_patterns(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.txt", ".d.csv", "deep/e.csv", "f[1].csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.csv").mkdir()

    def names(pattern: str) -> list[str]:
        return [Path(file).relative_to(tmp_path).as_posix() for file in File(f"{tmp_path}/{pattern}").expand()]

    assert File("out/*.csv").is_glob
    assert not File("out/a.csv").is_glob
    assert not File("http://host/a*").is_glob
    assert names("*.csv") == ["a.csv", "b.csv", "f[1].csv"]
    assert names("**/*.csv") == ["a.csv", "b.csv", "deep/e.csv", "f[1].csv"]
    assert names("*.nothing") == []
    assert names("f[1].csv") == ["f[1].csv"]
    assert names("missing") == ["missing"]
    assert File(tmp_path / "?.txt").expand()[0].filename == "c.txt"


def test_it_is_light() -> None:
    code = "import sys, mpitask; before = set(sys.modules); import mpitask.files; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"asyncio", "http.client", "ssl", "cloudpickle", "mpitask.staging"} & set(done.stdout.split())
