"""Downloads by FTP from a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from staging_helpers import FakeEngine

from mpitask.files import File
from mpitask.staging import FTPInTaskStaging, FTPSeparateTaskStaging, StagingError, ftp

authorizers = pytest.importorskip("pyftpdlib.authorizers", reason="pip install pyftpdlib")
handlers = pytest.importorskip("pyftpdlib.handlers")
servers = pytest.importorskip("pyftpdlib.servers")


class Server:
    """An FTP server with two users; `busy` counts the requests that it still refuses, `extra_bytes` makes SIZE lie."""

    def __init__(self, home: Path) -> None:
        self.busy = 0
        self.retrievals = 0
        self.extra_bytes = 0
        outer = self

        class Handler(handlers.FTPHandler):
            banner = "ready"
            auth_failed_timeout = 0

            def ftp_RETR(self, file: str) -> Any:  # noqa: N802
                outer.retrievals += 1
                if outer.busy:
                    outer.busy -= 1
                    self.respond("450 busy")
                    return None
                return super().ftp_RETR(file)

            def ftp_SIZE(self, path: str) -> None:  # noqa: N802
                size = Path(path).stat().st_size if Path(path).exists() else None
                self.respond("550 none" if size is None else f"213 {size + outer.extra_bytes}")

        Handler.authorizer = authorizers.DummyAuthorizer()
        Handler.authorizer.add_anonymous(str(home))
        Handler.authorizer.add_user("me", "s@cret", str(home))
        self._server = servers.FTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.socket.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._server.serve_forever(timeout=0.02, blocking=False)
        self._server.close_all()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / "sub" / "a b#.bin").write_bytes(b"\r\n\0" * 100_000)
    server = Server(home)
    yield server
    server.close()


def fails(url: str, target: Path) -> str:
    with pytest.raises(StagingError) as caught:
        ftp.fetch(url, str(target), attempts=2, pause_s=0.001)
    assert list(target.parent.iterdir()) == []
    return str(caught.value)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "w").mkdir()
    return tmp_path / "w" / "data.bin"


@pytest.mark.parametrize("user", ["", "me:s%40cret@"])
def test_downloads(server: Server, target: Path, user: str) -> None:
    ftp.fetch(f"ftp://{user}127.0.0.1:{server.port}/sub/a%20b#.bin", str(target))
    assert target.read_bytes() == b"\r\n\0" * 100_000


def test_permanent_errors(server: Server, target: Path) -> None:
    assert "550" in fails(f"ftp://127.0.0.1:{server.port}/missing", target)
    assert server.retrievals == 1
    text = fails(f"ftp://me:wr0ng@127.0.0.1:{server.port}/sub/a", target)
    assert "530" in text
    assert "user and password are right" in text
    assert "me:***@" in text
    assert "wr0ng" not in text
    assert "not a URL" in fails(f"ftp://127.0.0.1:{server.port}/a%0d%0ab", target)


def test_transient_errors(server: Server, target: Path) -> None:
    url = f"ftp://127.0.0.1:{server.port}/sub/a%20b%23.bin"
    server.busy = 2
    assert "450 busy" in fails(url, target)
    assert server.retrievals == 2
    server.busy = 1
    ftp.fetch(url, str(target), pause_s=0.001)
    assert target.stat().st_size == 300_000
    target.unlink()
    server.extra_bytes = 7
    assert "sent 300000 of 300007 bytes (tried 2 times)" in fails(url, target)


def test_no_server(server: Server, target: Path) -> None:
    server.close()
    assert "refused (tried 2 times)" in fails(f"ftp://127.0.0.1:{server.port}/x", target)


def test_providers(server: Server, dm: FakeEngine) -> None:
    url = f"ftp://127.0.0.1:{server.port}/sub/a%20b#.bin"
    file = File(url)
    separate = FTPSeparateTaskStaging(timeout_s=5, attempts=1)
    future = separate.stage_in(dm, "all", file, None)
    assert future.result(20) == file.filepath == f"{dm.working_dir}/a%20b#.bin"
    Path(file).unlink()
    in_task = FTPInTaskStaging()
    file = File(url)
    assert in_task.stage_in(dm, "all", file, None) is None
    assert dm.run(in_task.replace_task(dm, "all", file, Path.stat), Path(file)).st_size == 300_000
    for provider in (separate, in_task):
        assert provider.can_stage_in(file)
        assert not provider.can_stage_out(file)
        assert not provider.can_stage_in(File("http://x/y"))
