"""Downloads by http and https from a real server."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from staging_helpers import WebServer, body, cut, reset, status

from mpitask.errors import ConfigurationError
from mpitask.staging import StagingError, http, locks, transfer

FEW = {"pause_s": 0.001, "attempts": 3}


def fails(url: str, target: Path, **options: object) -> StagingError:
    with pytest.raises(StagingError) as caught:
        http.fetch(url, str(target), **{**FEW, **options})  # type: ignore[arg-type]
    assert not target.exists()
    assert list(target.parent.iterdir()) == []
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert (again.url, again.cause, again.remedy) == (caught.value.url, caught.value.cause, caught.value.remedy)
    return caught.value


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "w").mkdir()
    return tmp_path / "w" / "data.bin"


def test_downloads(web: WebServer, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    target = tmp_path / "new" / "folder" / "data.bin"
    url = web.route("/data?x=1", body(data))
    assert http.fetch(url + "#part", str(target)) == str(target)
    assert target.read_bytes() == data
    assert [path.name for path in target.parent.iterdir()] == ["data.bin"]
    assert web.headers["/data?x=1"]["User-Agent"].startswith("mpitask/")
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    return int(
        next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("Umask")).split()[1], 8
    )


def test_an_older_file_is_replaced_in_one_step_or_kept(web: WebServer, target: Path) -> None:
    target.write_bytes(b"old")
    with target.open("rb") as reader:
        http.fetch(web.route("/a", body(b"new")), str(target))
        assert reader.read() == b"old"
    assert target.read_bytes() == b"new"
    with pytest.raises(StagingError):
        http.fetch(web.route("/b", status(404)), str(target))
    assert target.read_bytes() == b"new"


def test_permanent_statuses_are_not_tried_again(web: WebServer, target: Path) -> None:
    error = fails(web.route("/gone", status(404)), target)
    assert error.cause == "the server answered 404 Not Found"
    assert "see whether the URL is right" in str(error)
    assert error.url in str(error)
    assert web.requests["/gone"] == 1
    assert "credentials" in str(fails(web.route("/secret", status(401)), target))
    fails(web.route("/never", status(501)), target)
    assert web.requests["/never"] == 1


@pytest.mark.parametrize(
    "trouble",
    [status(503), status(500), status(429), cut(1000, b"0123456789"), reset],
    ids=["503", "500", "429", "cut", "reset"],
)
def test_transient_trouble_is_tried_again(web: WebServer, target: Path, trouble: object) -> None:
    url = web.route("/data", trouble, trouble, body(b"whole"))  # type: ignore[arg-type]
    http.fetch(url, str(target), **FEW)  # type: ignore[arg-type]
    assert target.read_bytes() == b"whole"
    assert web.requests["/data"] == 3


def test_transient_trouble_that_stays(web: WebServer, target: Path) -> None:
    assert (
        fails(web.route("/a", status(503)), target).cause
        == "the server answered 503 Service Unavailable (tried 3 times)"
    )
    assert web.requests["/a"] == 3
    assert "sent 10 of 1000 bytes (tried 3 times)" in str(fails(web.route("/b", cut(1000, b"0123456789")), target))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        error = fails(f"http://127.0.0.1:{closed.getsockname()[1]}/x", target)
    assert "refused (tried 3 times); see whether the server is up" in str(error)


def test_pauses_grow_and_follow_the_server(web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=pauses.append))
    busy, asked, too_long = status(503), status(503, Retry_After="7"), status(503, Retry_After="99999")
    url = web.route("/data", busy, busy, busy, asked, too_long, body(b"x"))
    http.fetch(url, str(target), attempts=9, pause_s=1.0)
    assert len(pauses) == 5
    for pause, most in zip(pauses[:3], (1, 2, 4), strict=True):
        assert most / 2 <= pause <= most
    assert pauses[3:] == [pytest.approx(7, abs=1), 30.0]


def test_a_silent_server(web: WebServer, target: Path) -> None:
    url = web.route("/slow", lambda _: web.go_on.wait(100))
    started = time.monotonic()
    assert "timed out" in str(fails(url, target, timeout_s=0.2, attempts=1))
    assert time.monotonic() - started < 60


def test_redirects(web: WebServer, target: Path) -> None:
    web.route("/there", body(b"found"))
    http.fetch(web.route("/here", status(302, Location="/there")), str(target))
    assert target.read_bytes() == b"found"
    target.unlink()
    web.route("/loop", status(302, Location="/loop"))
    assert "302" in str(fails(web.route("/loop", status(302, Location="/loop")), target))
    for place in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        fails(web.route("/away", status(302, Location=place)), target)


def test_credentials_are_sent_to_their_host_only_and_not_shown(web: WebServer, target: Path) -> None:
    web.route("/there", status(404))
    url = web.route("/here", status(302, Location=f"http://localhost:{web.port}/there"))
    error = fails(url.replace("//", "//me:s%40cret@"), target)
    assert web.headers["/here"]["Authorization"] == "Basic bWU6c0BjcmV0"
    assert web.headers["/there"]["Authorization"] is None
    assert "me:***@127.0.0.1" in str(error)
    assert "cret" not in str(error)


def test_bad_urls_and_places(web: WebServer, target: Path, tmp_path: Path) -> None:
    assert "not a URL" in str(fails("http://127.0.0.1:port/x", target))
    assert "not a URL" in str(fails("http://127.0.0.1/a b", target))
    url = web.route("/x", body(b"x"))
    with pytest.raises(StagingError, match=r"Is a directory .*; see to the room and the permissions"):
        http.fetch(url, str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(StagingError, match="choose another working_dir"):
        http.fetch(url, str(tmp_path / "file" / "x"))
    long_name = target.with_name("n" * 250)
    http.fetch(url, str(long_name))
    assert long_name.read_bytes() == b"x"


def test_limits_are_checked() -> None:
    for options in ({"attempts": 0}, {"timeout_s": 0}, {"pause_s": -1}):
        with pytest.raises(ConfigurationError, match="give a number"):
            http.fetch("http://x/y", "z", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="attempts=0"):
        http.HTTPInTaskStaging(attempts=0)


def waiting_for(lock: Path) -> int:
    """How many open files of this process are the lock."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += link.readlink() == lock
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.parametrize("answer", [body(b"shared" * 1000), status(404)], ids=["ok", "404"])
def test_eight_threads_make_one_download(web: WebServer, target: Path, answer: object) -> None:
    def held(handler: object) -> None:
        web.go_on.wait(60)
        answer(handler)  # type: ignore[operator]

    url = web.route("/data", held)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(http.fetch, url, str(target)) for _ in range(8)]
        wait_until(lambda: waiting_for(transfer.beside(target, "lock")) == 8)
        web.go_on.set()
        errors = [future.exception(20) for future in futures]
    if target.exists():
        assert errors == [None] * 8
        assert web.requests["/data"] == 1
        assert target.read_bytes() == b"shared" * 1000
    else:  # a failure is not shared: it may be this node's
        assert [type(error) for error in errors] == [StagingError] * 8
        assert web.requests["/data"] == 8
    http.fetch(web.route("/data", body(b"later")), str(target))
    assert target.read_bytes() == b"later"


def test_another_url_into_the_same_place_is_not_shared(web: WebServer, target: Path) -> None:
    def held(handler: object) -> None:
        web.go_on.wait(60)
        body(b"one")(handler)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(http.fetch, web.route("/one", held), str(target))
        wait_until(lambda: web.requests["/one"] == 1)
        second = pool.submit(http.fetch, web.route("/two", body(b"two")), str(target))
        wait_until(lambda: waiting_for(transfer.beside(target, "lock")) == 2)
        web.go_on.set()
        first.result(20)
        second.result(20)
    assert target.read_bytes() == b"two"


def test_what_a_killed_download_left_is_cleared(web: WebServer, target: Path) -> None:
    transfer.beside(target, "lock").write_bytes(b"note")
    transfer.beside(target, "part").write_bytes(b"half")
    http.fetch(web.route("/x", body(b"x")), str(target))
    assert [path.name for path in target.parent.iterdir()] == ["data.bin"]


def test_without_locks(web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks, "fcntl", SimpleNamespace(flock=no_locks, LOCK_EX=2))
    http.fetch(web.route("/x", body(b"x")), str(target))
    assert [path.name for path in target.parent.iterdir()] == ["data.bin"]
    target.unlink()
    fails(web.route("/y", status(404)), target)


def test_certificates(web: WebServer, target: Path, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme", reason="pip install trustme")
    authority = trustme.CA()
    web.use_tls(authority.issue_cert("127.0.0.1"))
    url = web.route("/x", body(b"sealed"))
    error = fails(url, target)
    assert "is not trusted (" in error.cause
    assert "verify='/path/of/certificates.pem'" in error.remedy
    assert web.requests["/x"] == 0

    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    for verify in (str(trusted), False):
        http.fetch(url, str(target), verify=verify)  # type: ignore[arg-type]
        assert target.read_bytes() == b"sealed"
        target.unlink()
    wrong_name = url.replace("127.0.0.1", "localhost")
    assert "is not trusted (" in str(fails(wrong_name, target, verify=str(trusted)))
    assert "has no certificates" in str(fails(url, target, verify=str(tmp_path / "missing.pem")))


def test_lock_files_serialise_threads(tmp_path: Path) -> None:
    inside, most, guard = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with locks.LockFile(tmp_path / "lock") as lock:
                if lock.is_current():
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0)
                    with guard:
                        inside -= 1
                    lock.remove()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result(20)
    assert most == 1
    assert not (tmp_path / "lock").exists()


def test_a_file_that_is_too_large(web: WebServer, target: Path) -> None:
    url = web.route("/large", body(b"x" * 1000))
    assert "more than 999 bytes; if that is right, give a larger max_bytes" in str(fails(url, target, max_bytes=999))
    http.fetch(url, str(target), max_bytes=1000)
    with pytest.raises(ConfigurationError, match="max_bytes=0"):
        http.HTTPInTaskStaging(max_bytes=0)
