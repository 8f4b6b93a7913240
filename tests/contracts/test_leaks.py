"""What `make asan` reads: its verdict on the sanitizers' reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.leaks import main

STACK = "    #0 0x1 in malloc\n    #1 0x2 in mt_get csrc/base.c:10\n"
OURS = f"Direct leak of 8 byte(s) in 1 object(s) allocated from:\n{STACK}"
PYTHONS = OURS.replace("mt_get csrc/base.c:10", "PyMem_Malloc Objects/obmalloc.c:1")
FREED = "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x1\n    #0 0x1 in f\n"
UNDEFINED = "csrc/frames.c:5:7: runtime error: signed integer overflow\n"


@pytest.mark.parametrize(
    ("report", "is_bad"),
    [(OURS, True), (PYTHONS, False), (FREED, True), (UNDEFINED, True), (PYTHONS + "\n" + FREED, True)],
)
def test_verdict(tmp_path: Path, report: str, is_bad: bool) -> None:
    (tmp_path / "leaks.1").write_text(PYTHONS)
    (tmp_path / "leaks.2").write_text(report)
    assert main(str(tmp_path)) == int(is_bad)
