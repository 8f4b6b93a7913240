"""Rules of the C core that a compiler does not check by itself."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from helpers.processes import ROOT

CORE = ROOT / "csrc"
HEADERS = sorted(CORE.glob("*.h"))
SOURCES = sorted(CORE.glob("*.c"))


def included(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


@pytest.mark.compiles
def test_every_header_compiles_alone(tmp_path: Path) -> None:
    for header in HEADERS:
        command = [os.environ.get("CC", "cc"), "-std=gnu11", "-D_GNU_SOURCE", "-iquote", str(CORE), "-Wall", "-Wextra"]
        command += ["-Werror", "-fsyntax-only", "-x", "c", "-"]
        text = f'#include "{header.name}"\n#include "{header.name}"\n'
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{header.name}: {done.stderr}"


@pytest.mark.parametrize("path", [*HEADERS, *SOURCES], ids=lambda p: p.name)
def test_neither_mpi_nor_python_is_known(path: Path) -> None:
    assert not {"mpi.h", "Python.h"} & set(included(path))


def test_a_source_includes_its_own_header_first() -> None:
    for source in SOURCES:
        own = source.with_suffix(".h")
        inner = {f"{part}_inner.h" for part in ("driver", "engine", "sched", "sim")}  # of rooms with several sources
        first = included(source)[0]
        assert first == own.name if own.exists() and first not in inner else first in inner, source.name


def test_headers_begin_with_their_contract() -> None:
    for header in HEADERS:
        text = header.read_text()
        assert text.startswith(f"/* {header.name} - "), header.name
        if not header.name.endswith("_inner.h") and header.name != "atomic.h":
            assert "Role:" in text or header.name == "base.h", header.name
            assert "hread" in text, f"{header.name} has no thread rule"


def test_the_core_has_no_global_variables() -> None:
    found = []
    for source in SOURCES:
        for line in source.read_text().splitlines():
            if re.match(r"^(static\s+)?(?!const|inline|.*\()[a-z_][\w \*]*\b\w+(\[.*\])?\s*(=.*)?;$", line):
                declares = not line.startswith(("typedef", "struct", "enum", "return", "#", "extern"))
                if declares and " const " not in line and not line.startswith(("static const", "}")):
                    found.append(f"{source.name}: {line}")
    assert not found
