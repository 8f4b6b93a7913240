"""Imports point downward, borders have one gate each, and what is public has one home."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mpitask

PACKAGE = Path(mpitask.__file__).parent

# From the top. A module may import from its own layer and those below.
LAYERS = [
    {"", "__main__", "cli", "sim"},
    {"compat"},
    {"apps"},
    {"dataflow"},
    {"bulk", "executor"},
    {"engine", "submission", "running", "agent", "nested"},
    {"futures", "shared"},
    {"driver", "mpi", "worker", "tree", "unseen"},
    {"codec", "config"},
    {"definitions", "pickling", "watch"},
    {"staging", "memo"},
    {"files"},
    {"native"},
    {"errors", "environment", "allocation", "early", "logs", "private", "surroundings", "sources", "_version"},
]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    del found["native._build"]  # runs when the package is built
    return found


def layer_of(module: str) -> int:
    top = module.split(".", maxsplit=1)[0]
    found = [i for i, layer in enumerate(LAYERS) if top in layer]
    assert found, f"mpitask.{module} is in no layer: add it to LAYERS and to docs/design.md"
    return found[0]


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(tree: ast.AST) -> list[str]:
    """Names of modules imported anywhere but under TYPE_CHECKING."""
    found: list[str] = []
    for node in ast.iter_child_nodes(tree):
        if is_for_types_only(node):
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.append(str(node.module))
            found += [f"{node.module}.{alias.name}" for alias in node.names if node.module == "mpitask"]
        found += imports(node)
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_point_downward(module: str) -> None:
    for name in imports(ast.parse(modules()[module].read_text())):
        inside = name.removeprefix("mpitask.")
        if name.startswith("mpitask.") and inside.split(".")[0] in {m.split(".")[0] for m in modules() if m}:
            assert layer_of(inside) >= layer_of(module), f"mpitask.{module} imports {name}, which is above it"


def test_the_compiled_core_and_mpi4py_have_one_importer_each() -> None:
    for name, path in modules().items():
        text = path.read_text()
        assert ("native._core" in text) == (name == "native"), name
        assert ("mpi4py" in imports(ast.parse(text)) or "import mpi4py" in text or "from mpi4py" in text) == (
            name == "mpi"
        ), name


def test_the_face_is_light_and_complete() -> None:
    code = "import sys, mpitask; print(*sorted(m for m in sys.modules if m.partition('.')[0] in HEAVY))"
    code = code.replace("HEAVY", repr({"numpy", "mpi4py", "cffi", "cloudpickle", "asyncio", "psutil"}))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
    for name in mpitask.__all__:
        assert getattr(mpitask, name) is not None
    assert set(mpitask.__all__) - {"__version__"} == set(mpitask._HOMES)
    for name, home in mpitask._HOMES.items():
        assert getattr(importlib.import_module(home), name) is getattr(mpitask, name)


def test_workers_import_neither_mpi_nor_the_engine() -> None:
    code = "import sys, mpitask.worker.zygote, mpitask.worker.runner, mpitask.bulk.calls; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"mpi4py", "mpitask.engine", "mpitask.mpi", "mpitask.cli", "numpy"} & set(done.stdout.split())
