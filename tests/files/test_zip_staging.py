"""Members of zip archives: in and out, by several processes at once, and when one of them dies."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from concurrent.futures import Future
from pathlib import Path

import pytest
from staging_helpers import FakeEngine

from mpitask.errors import ConfigurationError
from mpitask.files import File
from mpitask.staging import StagingError, ZipAuthorityError, ZipFileStaging, transfer, zipped


def python(code: str, *args: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("one", b"1" * 1000)
        opened.writestr("in/side", b"2" * 1000)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"3" * 5000)
    return path


def content(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        names = opened.namelist()
        assert len(names) == len(set(names))
        return {name: opened.read(name) for name in names}


def test_out_and_in(archive: Path, source: Path, tmp_path: Path) -> None:
    zipped.insert(str(source), f"zip:{archive}/in/new")
    zipped.insert(str(source), f"zip:{tmp_path}/made/new.zip//in//new")
    assert content(archive) == {"one": b"1" * 1000, "in/side": b"2" * 1000, "in/new": b"3" * 5000}
    assert content(tmp_path / "made" / "new.zip") == {"in/new": b"3" * 5000}
    target = tmp_path / "w" / "side"
    assert zipped.extract(f"zip:{archive}/in/side", str(target)) == str(target)
    assert target.read_bytes() == b"2" * 1000
    assert list(target.parent.iterdir()) == [target]


def test_a_member_is_replaced(archive: Path, source: Path) -> None:
    for data in (b"first", b"second", b""):
        source.write_bytes(data)
        zipped.insert(str(source), f"zip:{archive}/one")
        assert content(archive) == {"one": data, "in/side": b"2" * 1000}


def test_files_from_before_1980(archive: Path, source: Path) -> None:
    os.utime(source, (0, 0))
    zipped.insert(str(source), f"zip:{archive}/old")
    assert "old" in content(archive)


def test_what_is_missing_or_damaged(archive: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "w" / "x"
    cases = {
        f"zip:{archive}/nothing": r"has no member 'nothing'; it has 'one', 'in/side'",
        f"zip:{tmp_path}/missing.zip/x": r"no such archive .*see whether the path is right",
        f"zip:{source}.zip/x": r"cannot be used: File is not a zip file; see whether it is a whole zip archive",
    }
    Path(f"{source}.zip").write_bytes(b"no zip")
    for url, text in cases.items():
        with pytest.raises(StagingError, match=text):
            zipped.extract(url, str(target))
        assert list(target.parent.iterdir()) == []
    with pytest.raises(StagingError, match="not a zip file"):
        zipped.insert(str(source), f"zip:{source}.zip/x")
    assert Path(f"{source}.zip").read_bytes() == b"no zip"
    with pytest.raises(StagingError, match=r"the task has not written .*let it write"):
        zipped.insert(str(tmp_path / "nothing"), f"zip:{archive}/x")
    damaged = bytearray(archive.read_bytes())
    damaged[40:60] = b"x" * 20
    archive.write_bytes(damaged)
    with pytest.raises(StagingError, match="Bad CRC-32"):
        zipped.extract(f"zip:{archive}/one", str(target))


def test_urls() -> None:
    assert zipped.split("zip:/a.ZIP/b.zip/c") == ("/a.ZIP", "b.zip/c")
    assert zipped.split("zip:/a.zip/b//c/./d#?") == ("/a.zip", "b/c/d#?")
    for url in (
        "zip:/a.zip",
        "zip:/a.zip/",
        "zip:/a/b",
        "zip:/a.zip/b/",
        "zip:/a.zip/../x",
        "zip:/a.zip/.",
    ):
        with pytest.raises(StagingError, match=r"write zip:/path/to\.zip/member"):
            zipped.split(url)
    for direction in (ZipFileStaging().can_stage_in, ZipFileStaging().can_stage_out):
        with pytest.raises(ZipAuthorityError, match=r"names the host 'host'; an archive is a local file"):
            direction(File("zip://host/a.zip/b"))
        assert direction(File("zip:/a.zip/b"))
        assert not direction(File("/a.zip/b"))


def test_a_failure_leaves_the_archive_as_it_was(
    archive: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = archive.read_bytes()

    def full(opened: zipfile.ZipFile, *_: object) -> None:
        opened.fp.seek(opened.start_dir)  # type: ignore[union-attr]
        opened.fp.write(b"x" * 10_000)  # type: ignore[union-attr]
        opened.fp.flush()  # type: ignore[union-attr]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "write", full)
    with pytest.raises(StagingError, match="No space left on device"):
        zipped.insert(str(source), f"zip:{archive}/new")
    assert archive.read_bytes() == before
    with pytest.raises(StagingError, match="No space left on device"):
        zipped.insert(str(source), f"zip:{tmp_path}/b.zip/new")
    assert not (tmp_path / "b.zip").exists()


DIES = """
import os, sys, zipfile
from mpitask.staging import zipped
def die(opened, *_):
    opened.fp.seek(opened.start_dir)
    opened.fp.write(b"x" * 10_000)
    opened.fp.flush()
    os.kill(os.getpid(), 9)
zipfile.ZipFile.write = die
zipped.insert(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("next_one", ["extract", "insert"])
def test_a_killed_process_costs_no_member(archive: Path, source: Path, tmp_path: Path, next_one: str) -> None:
    before = archive.read_bytes()
    with python(DIES, source, f"zip:{archive}/new") as process:
        process.communicate(timeout=60)
    assert process.returncode == -9
    assert transfer.beside(archive, "lock").exists()
    assert archive.read_bytes() != before
    if next_one == "extract":
        zipped.extract(f"zip:{archive}/one", str(tmp_path / "x"))
        assert archive.read_bytes() == before
    else:
        zipped.insert(str(source), f"zip:{archive}/new")
        assert content(archive) == {"one": b"1" * 1000, "in/side": b"2" * 1000, "new": b"3" * 5000}


def test_an_old_note_does_not_touch_another_archive(archive: Path, source: Path) -> None:
    with python(DIES, source, f"zip:{archive}/new") as process:
        process.communicate(timeout=60)
    other = archive.with_name("other")
    with zipfile.ZipFile(other, "w") as opened:
        opened.writestr("mine", b"4")
    other.replace(archive)
    zipped.insert(str(source), f"zip:{archive}/new")
    assert content(archive) == {"mine": b"4", "new": b"3" * 5000}


WRITES = """
import sys
from mpitask.staging import zipped
source, archive, name = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for i in range(25):
    zipped.insert(source, f"zip:{archive}/{name}/{i}")
    zipped.extract(f"zip:{archive}/{name}/{i // 2}", f"{source}.{name}")
"""


def test_two_processes_write_at_once(source: Path, tmp_path: Path) -> None:
    archive = tmp_path / "new.zip"
    processes = [python(WRITES, source, archive, name) for name in ("a", "b")]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert content(archive) == {f"{name}/{i}": b"3" * 5000 for name in ("a", "b") for i in range(25)}


def test_provider(dm: FakeEngine, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive.parent)
    staging = ZipFileStaging()
    file = File("zip:a.zip/in/side")
    assert staging.stage_in(dm, "all", file, None).result(20) == f"{dm.working_dir}/side" == file.filepath
    assert Path(file).read_bytes() == b"2" * 1000
    monkeypatch.chdir("/")

    first, second = File(f"zip:{archive}/1/out"), File(f"zip:{archive}/2/out")
    task = Future[None]()
    outs = [staging.stage_out(dm, "all", file, task) for file in (first, second)]
    assert first.filepath == f"{dm.working_dir}/out"
    assert second.filepath != first.filepath
    for file in (first, second):
        Path(file).write_text(file.url)
    task.set_result(None)
    assert [future.result(20) for future in outs] == [first.url, second.url]
    assert content(archive)["1/out"] == first.url.encode()
    assert content(archive)["2/out"] == second.url.encode()
    assert dm.labels == ["stage in zip:a.zip/in/side", f"stage out {first.url}", f"stage out {second.url}"]


def test_an_archive_that_would_fill_the_disk(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("bomb", b"0" * (17 << 20))
        opened.writestr("small", b"0" * (1 << 20))
    target = tmp_path / "w" / "out"
    for limits, text in (
        ({}, r"more than 200 times what it has packed.*use ZipFileStaging\(max_ratio=None\)"),
        ({"max_ratio": None, "max_bytes": 17 << 20 | 0xFF}, None),
        (
            {"max_ratio": None, "max_bytes": 17_000_000},
            r"'bomb' in .* has 17,825,792 bytes unpacked, more than 17,000,000",
        ),
    ):
        if text is None:
            zipped.extract(f"zip:{archive}/bomb", str(target), **limits)
            assert target.stat().st_size == 17 << 20
            target.unlink()
            continue
        with pytest.raises(StagingError, match=text):
            zipped.extract(f"zip:{archive}/bomb", str(target), **limits)
        assert list(target.parent.iterdir()) == []
    zipped.extract(f"zip:{archive}/small", str(target))
    for wrong in ({"max_bytes": 0}, {"max_ratio": -1.0}):
        with pytest.raises(ConfigurationError, match="give a number above 0, or None"):
            ZipFileStaging(**wrong)


def test_the_limits_of_a_provider_hold(dm: FakeEngine, archive: Path) -> None:
    with pytest.raises(StagingError, match="more than 999"):
        ZipFileStaging(max_bytes=999).stage_in(dm, "any", File(f"zip:{archive}/one"), None).result(timeout=60)
