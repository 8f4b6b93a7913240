"""The programs and commands of the documentation run as they stand there and print what it says.

A block is a program of its own, but after `<!-- continues -->`: then it goes on where the page's last one ended. A
program whose first line is `# name.py` is a file that commands below use.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from helpers.processes import LOCAL_PYTHON, ROOT, Launcher

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- continues -->\n)?```(python|sh)\n(.*?)```", re.DOTALL)

PRINTED: dict[str, list[str]] = {
    "README.md": ["332833500"],
    "executor.md": ["9\n\\[0, 1, 4, .*, 81\\]\n\\[8, 9\\]"],
    "guide.md": ["", "1000000\n17000\n499999500000000"],
    "tutorial.md": [
        "49",
        "285",
        r"\d+ /etc/passwd\n",
        "5050",
        "task 2 .*was not run because .* exceeded walltime: 0.5 seconds",
        "55",
        "144 exec_done",
        "499999500000.0\n45.0",
        "144",
    ],
}


def blocks(page: Path, language: str) -> list[str]:
    found: list[str] = []
    for continues, kind, text in BLOCK.findall(page.read_text()):
        if kind == language:
            found.append(found[-1] + text if continues else text)
    return found


PROGRAMS = [(page, i) for page in PAGES for i in range(len(blocks(page, "python")))]


@pytest.mark.writes
@pytest.mark.parametrize(("page", "number"), PROGRAMS, ids=[f"{page.stem}-{i + 1}" for page, i in PROGRAMS])
def test_program(launcher: Launcher, page: Path, number: int) -> None:
    program = blocks(page, "python")[number]
    result = launcher.run(program)
    assert result.rc == 0, result.err
    assert re.fullmatch(PRINTED[page.name][number] + r"\n*", result.out), result.out


@pytest.mark.writes
@pytest.mark.parametrize("plain", [False, True])
def test_the_step_with_a_checkpoint_is_not_run_twice(launcher: Launcher, tmp_path: Path, plain: bool) -> None:
    (program,) = [text for text in blocks(ROOT / "docs" / "tutorial.md", "python") if "checkpoint_mode" in text]
    outputs = []
    for source in (program, program, program.replace("x**2", "x**3")):
        result = launcher.run(source, plain=plain)
        assert result.rc == 0, result.err
        outputs.append(result.out.strip())
    assert outputs == ["144 exec_done", "144 memo_done", "1728 exec_done"]
    assert (tmp_path / "runinfo" / "000" / "checkpoint" / "tasks.memo").is_file()


@pytest.mark.writes
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=lambda page: page.stem)
def test_commands(page: Path, tmp_path: Path) -> None:
    for program in blocks(page, "python"):
        if name := re.match(r"# (\w+\.py)\n", program):
            (tmp_path / name[1]).write_text(program)
    (tmp_path / ".venv").symlink_to(Path(LOCAL_PYTHON).parent.parent)
    for line in "".join(blocks(page, "sh")).splitlines():
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "332833500\n"


def test_every_variable_is_in_the_guide() -> None:
    """Those that the package and its build look at."""
    files = [*(ROOT / "mpitask").rglob("*.py"), *(ROOT / "csrc").glob("*.[ch]"), ROOT / "setup.py"]
    used = {name for file in files for name in re.findall(r"\bMPITASK_[A-Z_]*[A-Z]\b(?!_H)", file.read_text())}
    table = (ROOT / "docs" / "guide.md").read_text().partition("## Environment variables")[2].partition("\n## ")[0]
    assert used - set(re.findall(r"`(MPITASK_\w+)`", table)) == set()
    assert set(re.findall(r"`(MPITASK_\w+)`", table)) - used == set()
