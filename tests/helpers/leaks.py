"""Reads what AddressSanitizer wrote at the end of processes; fails when memory that the core allocated has leaked.

The interpreter keeps a lot of memory until its end by design, so only a leak whose stack passes through `csrc/`
is ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

OURS = " csrc/"


def leaks_of_the_core(text: str) -> list[str]:
    """The paragraphs of a report that show a leak of memory allocated in the core."""
    return [part for part in text.split("\n\n") if "leak of" in part and OURS in part]


def main(folder: str) -> int:
    """Prints what it finds in the reports in `folder`; the exit code."""
    found = [leak for report in sorted(Path(folder).iterdir()) for leak in leaks_of_the_core(report.read_text())]
    print(*found, f"{len(found)} leaks in the core", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
