"""The core's lock-free parts under ThreadSanitizer: each C program here is built with the whole core and run.

A program prints one line of what it checked; one that fails names its seed and position. To try longer:
`make tsan`, then `build/tsan/ring 1000 SEED`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from helpers.processes import ROOT

PROGRAMS = sorted(path.stem for path in Path(__file__).parent.glob("*.c"))
LAYOUT_COMPLAINT = "unexpected memory mapping"  # an old ThreadSanitizer cannot do with every layout of a new kernel


def call(*command: str, limit_s: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
    )


@pytest.fixture(scope="session")
def built() -> None:
    done = call("make", "--no-print-directory", *(f"build/tsan/{name}" for name in PROGRAMS), limit_s=300)
    if "libtsan" in done.stderr and "cannot find" in done.stderr:
        pytest.skip(f"this compiler has no ThreadSanitizer: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr


@pytest.mark.compiles
@pytest.mark.timeout(420)
@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("name", PROGRAMS)
def test_threads(name: str) -> None:
    program = f"build/tsan/{name}"
    done = call(program, limit_s=110)
    if LAYOUT_COMPLAINT in done.stderr:
        done = call("setarch", "-R", program, limit_s=110)
    if LAYOUT_COMPLAINT in done.stderr or "setarch: failed" in done.stderr:
        pytest.skip(f"ThreadSanitizer does not run here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(name), "it says what it has checked"
