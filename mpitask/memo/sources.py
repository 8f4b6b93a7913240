"""The source of modules that a function imports when it runs: they need not be loaded here, so their files are read.

Thread rule: every function may be called from any thread.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder

_FILES_MAX = 4096

_files: dict[str, tuple[tuple[int, ...], bytes, frozenset[tuple[str, int]]]] = {}  # by path: state, digest, imports


class Imported:
    """A module that a function imports when it runs. `name` is absolute."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def content(self, is_library: Callable[[str], bool], is_library_file: Callable[[str], bool]) -> list[bytes]:
        """Digests of its source and of that of all modules of the user's that it imports, in a fixed order."""
        digests: dict[str, bytes] = {}
        waiting = [self.name]
        while waiting:
            name = waiting.pop()
            if name in digests or is_library(name):
                continue
            digests[name] = b""
            if parent := name.rpartition(".")[0]:
                waiting.append(parent)
            spec = _find(name)
            path = None if spec is None else spec.origin
            if spec is None or path is None or is_library_file(path):
                continue
            try:
                digests[name], imports = _read(path)
            except OSError:
                continue
            package = name if spec.submodule_search_locations is not None else parent
            waiting += _names(imports, package)
        return [digests[name] for name in sorted(digests) if digests[name]]


def _find(name: str) -> ModuleSpec | None:
    """The spec of a module, which is not imported for that."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(spec, ModuleSpec):
        return spec
    path = None
    at = ""
    for part in name.split("."):
        at = f"{at}.{part}" if at else part
        try:
            spec = PathFinder.find_spec(at, path)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def _read(path: str) -> tuple[bytes, frozenset[tuple[str, int]]]:
    """The digest of a file, and what it imports."""
    status = os.stat(path)  # noqa: PTH116 - a string
    state = (status.st_mtime_ns, status.st_size, status.st_ino)
    known = _files.get(path)
    if known is not None and known[0] == state:
        return known[1], known[2]
    with open(path, "rb") as file:  # noqa: PTH123 - a string
        data = file.read()
    try:
        imports = frozenset(_imports_of(ast.parse(data)))
    except (SyntaxError, ValueError):  # compiled, or no Python
        imports = frozenset()
    if len(_files) >= _FILES_MAX:
        _files.clear()
    _files[path] = state, sha256(data).digest(), imports
    return _files[path][1], imports


def _imports_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if base:
                yield base, node.level
            yield from ((f"{base}.{alias.name}" if base else alias.name, node.level) for alias in node.names)


def _names(imports: frozenset[tuple[str, int]], package: str) -> Iterator[str]:
    for name, level in imports:
        try:
            yield importlib.util.resolve_name("." * level + name, package) if level else name
        except ImportError:
            continue
