"""Engines for the tests of apps, and proof that nothing of them stays behind."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mpitask
from helpers.processes import MARK, describe, forgotten_memory, marked_processes, shared_memory
from mpitask import Config, Engine


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """No process, thread, file of the current folder, or shared memory is left by a module of tests."""
    mark = uuid.uuid4().hex
    threads = set(threading.enumerate())
    files = set(Path().iterdir())
    memory = shared_memory()
    os.environ[MARK] = mark
    yield
    del os.environ[MARK]
    deadline = time.monotonic() + 60
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"processes left behind:\n{describe(left)}"
    while (alive := set(threading.enumerate()) - threads) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive
    assert {path.name for path in set(Path().iterdir()) - files} <= {".pytest_cache", ".hypothesis"}
    assert not forgotten_memory(memory)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def engine(run_dir: Path, _leaves_nothing: None) -> Iterator[Engine]:
    """The current engine of a module."""
    with mpitask.load(workers=2, run_dir=run_dir) as engine:
        yield engine


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Further engines, for `data_flow_kernel=`; closed at the end of the test."""
    made: list[Engine] = []

    def make(**options: Any) -> Engine:
        inline = bool(options.get("inline"))
        config = Config(**({"run_dir": tmp_path / "runinfo"} | options))
        engine = Engine(config, workers=0 if inline else 1, inline_workers=int(inline)).start()
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close(drop=True)
