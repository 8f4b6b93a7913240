"""A package of ours under another package's name.

`install("mpitask.compat.parsl", "parsl")` makes `import parsl.x` give the module `mpitask.compat.parsl.x`, as one
object under both names, so that classes exist once. What we do not have is looked for in folders named `parsl/` on
sys.path, as if they were merged with ours: somebody's own `parsl/configs/mysite.py` is `parsl.configs.mysite`. Where
both have a module, ours is taken.

Only module names are decided here; nothing is imported before it is asked for. Thread rule: as for imports.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from mpitask.errors import ConfigurationError


class _SameModule:
    """Loads a module by importing it under its first name."""

    def __init__(self, first_name: str) -> None:
        self._first_name = first_name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002
        module = importlib.import_module(self._first_name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has just put the alias's there

    def get_code(self, fullname: str) -> Any:  # noqa: ARG002
        """For `runpy`, which runs modules as programs."""
        spec = importlib.util.find_spec(self._first_name)
        loader: Any = None if spec is None else spec.loader
        return None if loader is None else loader.get_code(self._first_name)


def _spec(fullname: str, first_name: str) -> ModuleSpec:
    loader: Any = _SameModule(first_name)
    return ModuleSpec(fullname, loader)


class Alias:
    """Finds modules of the package `home` under the package name `name`."""

    def __init__(self, home: str, name: str) -> None:
        self.home = home
        self.name = name
        self._folder = Path(next(iter(importlib.import_module(home).__path__)))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks for it."""
        if fullname == self.name:
            return _spec(fullname, self.home)
        for prefix, other in ((self.name, self.home), (self.home, self.name)):
            if fullname.startswith(prefix + "."):
                inside = fullname[len(prefix) + 1 :]
                if prefix == self.home and self._is_ours(inside):
                    return None  # by the usual way
                if self._is_ours(inside):
                    return _spec(fullname, f"{other}.{inside}")
                spec = self._find_outside(f"{self.name}.{inside}", inside, path, target)
                if spec is not None and prefix == self.home:
                    return _spec(fullname, spec.name)
                return spec
        return None

    def _is_ours(self, inside: str) -> bool:
        base = self._folder.joinpath(*inside.split("."))
        return base.with_name(base.name + ".py").is_file() or (base / "__init__.py").is_file()

    def _find_outside(
        self, fullname: str, inside: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        parent = inside.rpartition(".")[0]
        if parent and not self._is_ours(parent):
            return PathFinder.find_spec(fullname, path, target)  # the package above knows its own folders
        return PathFinder.find_spec(fullname, self._outside_folders(parent), target)

    def _outside_folders(self, inside: str) -> list[str]:
        """Folders on sys.path that would be this package if we had none; as they are now, for scripts that add some."""
        parts = [self.name, *filter(None, inside.split("."))]
        folders = [Path(entry or ".").joinpath(*parts) for entry in sys.path]
        return [str(folder.absolute()) for folder in folders if folder.is_dir()]


def install(home: str, name: str) -> None:
    """Makes `name` another name of the package `home`, in this process. May be called again.

    Raises:
        ConfigurationError: something else has been imported under that name already.
    """
    package = importlib.import_module(home)
    known = sys.modules.get(name)
    if known is package:
        return
    if known is not None:
        raise ConfigurationError(
            f"{name} has been imported already (from {getattr(known, '__file__', None) or known!r}): "
            f"call {home}.install() before anything imports {name}"
        )
    sys.meta_path.insert(0, Alias(home, name))
    package.__path__ = pkgutil.extend_path(package.__path__, name)
    sys.modules[name] = package


def lazy_submodules(package: str, names: Mapping[str, str] = {}) -> Any:
    """A `__getattr__` for a package: its modules are imported when they are named, and `names` from their modules."""

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name in names:
            return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
        if not name.startswith("__"):
            try:
                return importlib.import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
