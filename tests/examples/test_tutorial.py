"""The programs of the tutorial run as they are and print what it says."""

from __future__ import annotations

import re

import pytest

from helpers.processes import ROOT, Launcher

PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL)
PRINTED = [
    "49",
    "285",
    r"\d+ /etc/passwd\n",
    "5050",
    "task 2 was not run: .* exceeded walltime: 0.5 seconds",
    "55",
    "144",
    "499999500000.0\n45.0",
    "144",
]


@pytest.mark.writes
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program(launcher: Launcher, number: int) -> None:
    result = launcher.run(PROGRAMS[number], plain="load(" in PROGRAMS[number])
    assert result.rc == 0, result.err
    assert re.fullmatch(PRINTED[number] + r"\n", result.out), result.out
