"""What the command line runs: a script, a folder or archive with a __main__.py, a module, a command, standard input.

Each is run as the interpreter itself does: with its `sys.argv`, its first entry of `sys.path`, and what its
`__main__` has.
"""

from __future__ import annotations

import importlib.util
import linecache
import os
import sys
import types
import zipimport
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from mpitask.errors import ConfigurationError


class Target:
    """A program of the user's. Made on every rank, run on one."""

    def __init__(self, kind: str, name: str, args: list[str]) -> None:
        """A program.

        Args:
            kind: "script", "module" (-m) or "command" (-c).
            name: a path, or "-"; the module's name; the command.
            args: its arguments.

        Raises:
            ConfigurationError: there is no such thing.
        """
        self.args = args
        self._name = name
        self._kind = "stdin" if kind == "script" and name == "-" else kind
        if self._kind == "script" and not Path(name).is_file():
            if not Path(name).exists():
                raise ConfigurationError(f"there is no script {name!r}")
            if not Path(name, "__main__.py").is_file():
                raise ConfigurationError(f"there is no __main__.py in the folder {name!r}")
        if self._kind == "script" and (Path(name).is_dir() or _is_archive(name)):
            self._kind = "bundle"

    def enter(self) -> None:
        """Sets `sys.argv` and the module search path; the same on all ranks, whose workers inherit it.

        Raises:
            ConfigurationError: there is no such module.
        """
        first = {"script": self._name, "bundle": self._name, "module": "-m", "command": "-c", "stdin": "-"}[self._kind]
        sys.argv = [first, *self.args]
        if self._kind == "bundle":
            place = os.path.join(os.getcwd(), self._name)  # noqa: PTH109, PTH118 - not normalised
            sys.path[0:1] = [place] if not sys.flags.safe_path else [place, *sys.path[0:1]]
        elif not sys.flags.safe_path:  # else there is no entry for it
            folder = {"script": str(Path(self._name).resolve().parent), "module": os.path.realpath(os.curdir)}
            sys.path[0] = folder.get(self._kind, "")
        if self._kind == "module":
            top = self._name.split(".")[0]
            if not top or (top not in sys.builtin_module_names and PathFinder.find_spec(top) is None):
                raise ConfigurationError(f"there is no module {top!r} (-m {self._name}) in {os.pathsep.join(sys.path)}")

    def run(self) -> None:
        """Runs it as `__main__`. Raises what it raises."""
        module = types.ModuleType("__main__")
        values = module.__dict__
        values.update(__builtins__=__builtins__, __cached__=None)
        sys.modules["__main__"] = module
        if self._kind == "script":
            path = os.path.join(os.getcwd(), self._name)  # noqa: PTH109, PTH118 - not normalised there, either
            values["__file__"] = path
            code = compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
        elif self._kind == "command":
            code = self._compile(self._name, "<string>", values)
        elif self._kind == "stdin":
            values["__file__"] = "<stdin>"
            code = self._compile(sys.stdin.read(), "<stdin>", values)
        else:
            name = "__main__" if self._kind == "bundle" else self._name
            try:
                spec, code = _find(name, self._name if self._kind == "bundle" else None)
            except ConfigurationError as error:
                print(f"mpitask: {error}", file=sys.stderr)
                raise SystemExit(1) from None
            values.update(
                __file__=spec.origin,
                __spec__=spec,
                __loader__=spec.loader,
                __package__=spec.parent,
                __cached__=spec.cached,
            )
            if self._kind == "module":
                sys.argv[0] = str(spec.origin)
        exec(code, values)

    @staticmethod
    def _compile(text: str, name: str, values: dict[str, Any]) -> types.CodeType:
        values["__annotations__"] = {}
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)  # for tracebacks
        return compile(text, name, "exec", dont_inherit=True)


def _is_archive(path: str) -> bool:
    try:
        zipimport.zipimporter(path)
    except zipimport.ZipImportError:
        return False
    return True


def _find(name: str, within: str | None) -> tuple[ModuleSpec, types.CodeType]:
    """A module and its code; of a package, those of its __main__. Its parents are imported."""
    try:
        spec = importlib.util.find_spec(name) if within is None else PathFinder.find_spec(name, sys.path[0:1])
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise
        spec = None
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"there is no module {name!r} that could be run")
    if spec.submodule_search_locations is not None:
        return _find(name + ".__main__", None)
    code = spec.loader.get_code(spec.name) if hasattr(spec.loader, "get_code") else None
    if code is None:
        raise ConfigurationError(f"the module {name!r} has no Python code that could be run")
    return spec, code
