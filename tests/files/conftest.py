"""Fixtures of the tests of staging; proof that nothing stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from staging_helpers import FakeEngine, WebServer


@pytest.fixture(autouse=True)
def _leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    threads = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 60
    while (left := set(threading.enumerate()) - threads) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left
    assert not [child for child in psutil.Process().children() if "resource_tracker" not in " ".join(child.cmdline())]
    assert not [path for path in tmp_path.rglob(".*") if path.suffix in (".lock", ".part")]


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def dm(tmp_path: Path) -> Iterator[FakeEngine]:
    engine = FakeEngine(tmp_path / "work")
    yield engine
    engine.close()
