"""Reads what sanitizers wrote; fails when they found an error, or when memory that the core allocated has leaked.

The interpreter keeps a lot of memory until its end by design, so only a leak whose stack passes through `csrc/`
is ours. For the sake of all others the sanitizers' exit code is 0, which is also that of a process that an error has
ended: without this, its tests would seem to have passed.
"""

from __future__ import annotations

import sys
from pathlib import Path

OURS = " csrc/"


def leaks_of_the_core(text: str) -> list[str]:
    """The paragraphs of a report that show a leak of memory allocated in the core."""
    return [part for part in text.split("\n\n") if "leak of" in part and OURS in part]


def errors(text: str) -> list[str]:
    """The paragraphs of a report that say what ended the process."""
    return [part for part in text.split("\n\n") if "ERROR: AddressSanitizer" in part or "runtime error:" in part]


def main(folder: str) -> int:
    """Prints what it finds in the reports in `folder`; the exit code."""
    reports = [report.read_text() for report in sorted(Path(folder).iterdir())]
    wrong = [error for text in reports for error in errors(text)]
    found = [leak for text in reports for leak in leaks_of_the_core(text)]
    print(*wrong, *found, f"{len(wrong)} errors, {len(found)} leaks in the core", sep="\n")
    return 1 if wrong or found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
