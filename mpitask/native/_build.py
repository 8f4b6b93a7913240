"""Which declarations of the C core Python sees, and of which files it consists; setup.py compiles them.

The declarations are read from the headers, between the lines `/* cffi:begin */` and `/* cffi:end */`:
there is no second copy of them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "csrc"
FLAGS = ["-std=gnu11", "-O2", "-g", "-fvisibility=hidden"]
BEGIN, END = "/* cffi:begin */", "/* cffi:end */"


def headers_in_order() -> list[Path]:
    """All headers of the core, each after those that it includes."""
    order: list[Path] = []

    def visit(header: Path) -> None:
        if header in order:
            return
        for name in re.findall(r'#include "(\w+\.h)"', header.read_text()):
            visit(CORE / name)
        order.append(header)

    for header in sorted(CORE.glob("*.h")):
        visit(header)
    return order


def declarations(header: Path) -> str:
    """The part of a header that Python sees, as cffi understands it."""
    text = header.read_text()
    parts = []
    while BEGIN in text:
        part, text = text.split(BEGIN, 1)[1].split(END, 1)
        parts.append(part)
    plain = re.sub(r"/\*.*?\*/", "", "\n".join(parts), flags=re.DOTALL)
    plain = re.sub(r"\b(MT_EXPORT|MT_MUST_CHECK)\s+", "", plain)
    return re.sub(r"^(#define \w+) (-?\w+)\s*$", r"\1 ...", plain, flags=re.MULTILINE)


def make_builder() -> FFI:
    """The cffi builder of the extension module."""
    builder = FFI()
    headers = headers_in_order()
    visible = [header for header in headers if BEGIN in header.read_text()]
    for header in visible:
        builder.cdef(declarations(header))
    includes = "".join(f'#include "{header.name}"\n' for header in visible)
    builder.set_source(
        "mpitask.native._core",
        includes,
        sources=sorted(os.path.relpath(path, ROOT) for path in CORE.glob("*.c")),
        depends=[os.path.relpath(path, ROOT) for path in headers],
        define_macros=[("_GNU_SOURCE", "1")],
        # -iquote rather than -I: our sched.h must not hide the system's
        extra_compile_args=["-iquote", os.path.relpath(CORE, ROOT), *FLAGS],
        extra_link_args=["-pthread"],
    )
    return builder


ffibuilder = make_builder()
