"""Records that are no good, from seeds, into an engine that AddressSanitizer watches.

To try longer: `build/fuzz/records 100000 SEED`.
"""

from __future__ import annotations

import subprocess

import pytest

from helpers.processes import ROOT


@pytest.mark.compiles
@pytest.mark.timeout(420)
def test_records_that_are_no_good() -> None:
    command = ["make", "--no-print-directory", "build/fuzz/records"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if "cannot find" in built.stderr and "asan" in built.stderr:
        pytest.skip(f"this compiler has no AddressSanitizer: {built.stderr.splitlines()[0]}")
    assert built.returncode == 0, built.stderr
    command = ["build/fuzz/records"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("records: "), "it says what it has checked"
