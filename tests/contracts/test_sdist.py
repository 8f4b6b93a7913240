"""The source package holds all that a distributor needs: to build, to test and to read."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from helpers.processes import ROOT

WANTED = (
    *("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml", "setup.py"),
    *("csrc/engine.c", "csrc/engine.h", "docs/guide.md", "examples/landuse/run.py", "launch_scripts/README.md"),
    *("tests/conftest.py", "tests/rooms/test_ring.py", "tests/stress/ring.c", "benchmarks/README.md"),
)


def test_the_source_package_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "sdist", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(package) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not [name for name in WANTED if name not in names]
    unwanted = [name for name in names if name.startswith((".", "build")) or name.endswith((".so", ".pyc"))]
    assert not unwanted
