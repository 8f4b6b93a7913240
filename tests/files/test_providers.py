"""Which provider is asked for which file, and what the web ones do for an engine."""

from __future__ import annotations

import inspect
import pickle
import re
from concurrent.futures import Future
from pathlib import Path

import pytest
from staging_helpers import FakeEngine, WebServer, body, status

from mpitask.files import File
from mpitask.staging import (
    DEFAULT_STAGING,
    FsspecStaging,
    GlobusStaging,
    HTTPInTaskStaging,
    HTTPSeparateTaskStaging,
    NoOpFileStaging,
    RSyncStaging,
    Staging,
    StagingError,
    choose,
)
from mpitask.staging.base import Claims, Staged


@pytest.mark.parametrize(
    ("url", "direction", "name"),
    [
        ("a.txt", "in", "NoOpFileStaging"),
        ("file:///a.txt", "out", "NoOpFileStaging"),
        ("http://host/a", "in", "HTTPSeparateTaskStaging"),
        ("https://host/a", "in", "HTTPSeparateTaskStaging"),
        ("ftp://host/a", "in", "FTPSeparateTaskStaging"),
        ("zip:/a.zip/b", "in", "ZipFileStaging"),
        ("zip:/a.zip/b", "out", "ZipFileStaging"),
        ("s3://bucket/a", "in", "FsspecStaging"),
        ("s3://bucket/a", "out", "FsspecStaging"),
    ],
)
def test_the_default_list(url: str, direction: str, name: str) -> None:
    assert type(choose(DEFAULT_STAGING, File(url), direction)).__name__ == name  # type: ignore[arg-type]


def test_nobody_is_responsible() -> None:
    with pytest.raises(
        ValueError, match=r"^no staging provider for http://u:\*\*\*@h/a \(stage out\); configured: NoOp"
    ):
        choose(DEFAULT_STAGING, File("http://u:p@h/a"), "out")
    providers = [FsspecStaging(["s3"]), RSyncStaging("me@host"), GlobusStaging("uuid")]
    text = "x:/y (stage in); configured: FsspecStaging(['s3']), RSyncStaging('me@host'), GlobusStaging('uuid')"
    with pytest.raises(ValueError, match=re.escape(text)):
        choose(providers, File("x:/y"), "in")
    with pytest.raises(ValueError, match="configured: none"):
        choose([], File("x"), "in")


def test_the_first_one_wins() -> None:
    mine = NoOpFileStaging()
    assert choose([HTTPInTaskStaging(), mine, RSyncStaging("host")], File("a"), "in") is mine


def test_the_base_class_stages_nothing(dm: FakeEngine) -> None:
    nothing, file = Staging(), File("a")
    assert not nothing.can_stage_in(file)
    assert not nothing.can_stage_out(file)
    assert nothing.stage_in(dm, "all", file, None) is None
    assert nothing.stage_out(dm, "all", file, Future()) is None
    assert nothing.replace_task(dm, "all", file, len) is None
    assert nothing.replace_task_stage_out(dm, "all", file, len) is None
    assert repr(nothing) == "Staging()"


def test_by_a_task_of_its_own(dm: FakeEngine, web: WebServer) -> None:
    staging = HTTPSeparateTaskStaging(attempts=1)
    file, parent = File(web.route("/a/data.bin?x", body(b"data"))), Future[None]()
    assert staging.can_stage_in(file)
    assert not staging.can_stage_out(file)
    future = staging.stage_in(dm, "all", file, parent)
    assert file.local_path == f"{dm.working_dir}/data.bin"
    assert not web.requests
    parent.set_result(None)
    assert future.result(20) == file.local_path
    assert Path(file).read_bytes() == b"data"
    assert dm.labels == [f"stage in {file.url}"]
    failed = staging.stage_in(dm, "all", File(web.route("/gone", status(404))), None)
    with pytest.raises(StagingError, match="404"):
        failed.result(20)
    with pytest.raises(StagingError, match="give the URL of one file"):
        staging.stage_in(dm, "all", File("http://host/folder/"), None)


def read(file: File, *, upper: bool = False) -> str:
    """Reads."""
    text = Path(file).read_text()
    return text.upper() if upper else text


def test_inside_the_task(dm: FakeEngine, web: WebServer) -> None:
    staging = HTTPInTaskStaging(attempts=1)
    file = File(web.route("/a/data.txt", body(b"data")))
    assert staging.stage_in(dm, "all", file, None) is None
    assert file.local_path == f"{dm.working_dir}/data.txt"
    wrapped = staging.replace_task(dm, "all", file, read)
    assert not Path(file).exists()
    assert dm.run(wrapped, file) == "data"
    assert pickle.loads(pickle.dumps(wrapped))(file, upper=True) == "DATA"
    assert wrapped.__name__ == "read"
    assert wrapped.__doc__ == "Reads."
    assert inspect.signature(wrapped) == inspect.signature(read)
    gone = File(web.route("/gone", status(404)))
    with pytest.raises(StagingError, match="404"):
        dm.run(staging.replace_task(dm, "all", gone, read), gone)


def test_files_of_one_name_get_different_places(dm: FakeEngine, web: WebServer) -> None:
    staging = HTTPSeparateTaskStaging()
    files = [File(web.route(f"/{i}/data.txt", body(str(i).encode()))) for i in range(3)]
    for future in [staging.stage_in(dm, "all", file, None) for file in files]:
        future.result(20)
    assert [Path(file).read_text() for file in files] == ["0", "1", "2"]
    assert [Path(file).name for file in files] == ["data.txt"] * 3
    again = files[2].cleancopy()
    staging.stage_in(dm, "all", again, None).result(20)
    assert again.filepath == files[2].filepath


def test_claims() -> None:
    claims = Claims()
    assert claims.place("/w", "a", "u1") == claims.place("/w", "a", "u1") == "/w/a"
    other = claims.place("/w", "a", "u2")
    assert other == Claims().place(str(Path(other).parent), "a", "u2")
    assert other.startswith("/w/")
    assert claims.place("/v", "a", "u2") == "/v/a"


def test_what_comes_after_a_failed_function_is_left_out() -> None:
    done: list[str] = []
    staged = Staged(int, before=[lambda: done.append("before")], after=[lambda: done.append("after")])
    with pytest.raises(ValueError, match="invalid literal"):
        staged("x")
    assert done == ["before"]
    assert staged("7") == 7
    assert done == ["before", "before", "after"]
