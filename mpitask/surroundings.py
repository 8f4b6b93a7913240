"""What a script has set around itself and its tasks shall have, too: folder, variables, search path, log, warnings.

Worker processes start with what the job, or the program, had when its engine started; a script goes on to change it.
The engine takes note of the changes once, at its first call (`changes_since`). Functions carry them to the workers
(`Carried`), which put them in place before the function itself is unpickled.

Thread rule: the first half is for any thread; the second is for the thread that runs tasks.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cloudpickle

from mpitask.errors import ConfigurationError

# -- the script's side --


@dataclass(frozen=True)
class Start:
    """What workers start with."""

    folder: str
    variables: dict[str, str]
    path: list[str]
    umask: int

    @classmethod
    def now(cls) -> Start:
        """As it is."""
        return cls(_folder(), dict(os.environ), _search_path(), _umask())


def changes_since(start: Start, options: dict[str, Any]) -> bytes:
    """What is different now, and options for sub-tasks, as bytes; empty: nothing. Equal bytes mean equal changes."""
    now = Start.now()
    found: dict[str, Any] = {}
    for name in ("folder", "path", "umask"):
        if getattr(now, name) != getattr(start, name):
            found[name] = getattr(now, name)
    names = sorted(start.variables.keys() | now.variables.keys())
    variables = {
        name: now.variables.get(name) for name in names if start.variables.get(name) != now.variables.get(name)
    }
    if variables:
        found["variables"] = variables
    if sys.getrecursionlimit() != _USUAL_RECURSION:
        found["recursion"] = sys.getrecursionlimit()
    filters = [_described_filter(*entry) for entry in warnings.filters]
    if filters != _USUAL_FILTERS:
        found["filters"] = filters
    log = _described_log()
    if log != _NO_LOG:
        found["log"] = log
    if options:
        found["options"] = options
    return pickle.dumps(found) if found else b""


_USUAL_RECURSION = 1000


def _described_filter(action: str, message: Any, category: Any, module: Any, line: int) -> tuple[Any, ...]:
    """A filter of warnings in plain values; a class of the script's by value, others by name."""
    of_script = category.__module__ == "__main__"
    kind = cloudpickle.dumps(category) if of_script else (category.__module__, category.__qualname__)
    return action, getattr(message, "pattern", message), kind, getattr(module, "pattern", module), line


_USUAL_FILTERS = [
    _described_filter("default", None, DeprecationWarning, "__main__", 0),
    *(
        _described_filter("ignore", None, category, None, 0)
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
    ),
]


def _folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a string is wanted
    except OSError:
        return ""  # it has been removed


def _search_path() -> list[str]:
    return [os.path.realpath(entry) if entry == "" else entry for entry in sys.path]


def _umask() -> int:
    """The file mode mask; read without changing it, since other threads make files."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return -1


_NO_LOG: tuple[Any, ...] = (0, False, [])


def _described_log() -> tuple[Any, ...]:
    """The log's configuration, apart from mpitask's own: levels, and handlers for the standard streams and files."""
    loggers = [logging.root]
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.split(".")[0] != "mpitask":
            loggers.append(logger)  # type: ignore[arg-type]
    described = []
    for logger in loggers:
        usual = logging.WARNING if logger is logging.root else logging.NOTSET
        handlers = [text for handler in logger.handlers if (text := _described_handler(handler)) is not None]
        if logger.level != usual or logger.disabled or not logger.propagate or handlers:
            name = "" if logger is logging.root else logger.name
            described.append((name, logger.level, logger.disabled, logger.propagate, handlers))
    takes_warnings = getattr(logging, "_warnings_showwarning", None) is not None
    return logging.root.manager.disable, takes_warnings, described


def _described_handler(handler: logging.Handler) -> tuple[Any, ...] | None:
    """None: one that only the script's process can have."""
    target: tuple[str, str | None]
    if type(handler) is logging.StreamHandler:
        streams = {id(sys.stderr): "stderr", id(sys.stdout): "stdout"}
        name = streams.get(id(handler.stream), {"<stderr>": "stderr", "<stdout>": "stdout"}.get(_name(handler.stream)))
        if name is None:
            return None
        target = (name, None)
    elif type(handler) is logging.FileHandler:
        target = (handler.baseFilename, handler.encoding)
    else:
        return None
    kept: list[bytes] = []
    for part in (handler.formatter, handler.filters):
        try:
            kept.append(cloudpickle.dumps(part))
        except Exception:  # noqa: BLE001 - it stays with the script
            kept.append(b"")
    return type(handler).__name__, *target, handler.level, *kept


def _name(stream: Any) -> str:
    return str(getattr(stream, "name", ""))


class Carried:
    """A function that is pickled with changes. What comes out elsewhere is the function alone."""

    def __init__(self, changes: bytes, fn: Callable[..., Any]) -> None:
        self._changes = changes
        self._fn = fn
        self.__qualname__ = getattr(fn, "__qualname__", repr(fn))

    def __reduce__(self) -> Any:
        return _function, (_InPlace(self._changes), self._fn)  # in this order


class _InPlace:
    def __init__(self, changes: bytes) -> None:
        self._changes = changes

    def __reduce__(self) -> Any:
        return _put_in_place, (self._changes,)


def _function(_: None, fn: Callable[..., Any]) -> Callable[..., Any]:
    if _current is not None:
        _current.set_filters()  # of classes, too, that are there since the function was unpickled
    return fn


# -- the workers' side --


class Surroundings:
    """What tasks have around them: what the process started with, and changes of it."""

    def __init__(self, changes: bytes, start: Start) -> None:
        self.changes = changes
        self._start = start
        self._found: dict[str, Any] = pickle.loads(changes) if changes else {}

    def enter(self, before: Surroundings) -> None:
        """Puts them in the place of others.

        Raises:
            ConfigurationError: the folder is not there on this host.
        """
        global _current
        found = self._found
        for name in found.get("variables", {}).keys() | before._found.get("variables", {}).keys():
            value = found.get("variables", {}).get(name, self._start.variables.get(name))
            if name in found.get("variables", {}):
                value = found["variables"][name]
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        sys.path[:] = found.get("path", self._start.path)
        importlib.invalidate_caches()
        if (umask := found.get("umask", self._start.umask)) >= 0:
            os.umask(umask)
        sys.setrecursionlimit(found.get("recursion", _USUAL_RECURSION))
        if "log" in found or "log" in before._found:
            _set_log(*found.get("log", _NO_LOG))
        if "filters" in before._found and "filters" not in found:
            _set_filters(_USUAL_FILTERS)
        self.set_filters()
        if "folder" in found or "folder" in before._found:
            folder = found.get("folder", self._start.folder)
            try:
                os.chdir(folder)
            except OSError as error:
                raise ConfigurationError(
                    f"the script had changed to the folder {folder} when it first called an app, and workers on "
                    f"{os.uname().nodename} cannot: {error.strerror}. Use one that all nodes have"
                ) from error
        _current = self

    @property
    def folder(self) -> str:
        """The folder; empty: it is not known."""
        return str(self._found.get("folder", self._start.folder))

    @property
    def umask(self) -> int:
        """The file mode mask; negative: it is not known."""
        return int(self._found.get("umask", self._start.umask))

    @property
    def variables(self) -> dict[str, str]:
        """The environment."""
        changed: dict[str, str | None] = self._found.get("variables", {})
        return {name: value for name, value in (self._start.variables | changed).items() if value is not None}

    def keep(self) -> None:
        """What is different now is what the process has started with."""
        now, start, found = Start.now(), self._start, self._found
        variables, wanted = dict(start.variables), self.variables
        for name in wanted.keys() | now.variables.keys():
            if now.variables.get(name) != wanted.get(name):
                found.get("variables", {}).pop(name, None)
                variables.pop(name, None)
                if name in now.variables:
                    variables[name] = now.variables[name]
        folder, umask = start.folder, start.umask
        if now.folder != self.folder:
            folder = now.folder
            found.pop("folder", None)
        if now.umask != self.umask:
            umask = now.umask
            found.pop("umask", None)
        for one in _known.values():
            one._start = Start(folder, variables, start.path, umask)

    def set_filters(self) -> None:
        """The filters of warnings, as far as the classes that they name are there."""
        if "filters" in self._found:
            _set_filters(self._found["filters"])

    @property
    def options(self) -> dict[str, Any]:
        """Options for sub-tasks that are not the job's."""
        return dict(self._found.get("options", {}))


class Within:
    """A function that is called with surroundings of its own, in a process whose functions have different ones."""

    def __init__(self, surroundings: Surroundings, fn: Callable[..., Any]) -> None:
        self._surroundings = surroundings
        self._fn = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it."""
        if _current is not None and _current is not self._surroundings:
            self._surroundings.enter(_current)
        return self._fn(*args, **kwargs)


_current: Surroundings | None = None
_known: dict[bytes, Surroundings] = {}


def follow() -> None:
    """This process runs tasks for a script elsewhere: it takes over what functions carry."""
    global _current
    _current = Surroundings(b"", Start.now())
    _known.clear()
    _known[b""] = _current


def current() -> Surroundings | None:
    """Those of a process that follows a script; None: it does not."""
    return _current


def load(unpickle: Callable[[], Callable[..., Any]], known: dict[int, Callable[..., Any]]) -> Callable[..., Any]:
    """Unpickles a function; if it has other surroundings than `known` ones, each is called with its own from now on."""
    before = _current
    if before is None:
        return unpickle()
    global _last
    _last = _known[b""]
    fn = unpickle()
    mine = _last
    if mine is not _current and _current is not None:  # it carried nothing, and those before it did
        mine.enter(_current)
    if mine is not before:
        for number, other in known.items():
            known[number] = other if isinstance(other, Within) else Within(before, other)
    is_mixed = any(isinstance(other, Within) for other in known.values())
    return Within(mine, fn) if is_mixed else fn


_last: Surroundings | None = None


def _put_in_place(changes: bytes) -> None:
    global _last
    if _current is None:
        return  # the script's own process
    wanted = _known.get(changes)
    if wanted is None:
        wanted = _known[changes] = Surroundings(changes, _known[b""]._start)
    if wanted is not _current:
        wanted.enter(_current)
    _last = wanted


def _set_filters(filters: list[tuple[Any, ...]]) -> None:
    warnings.resetwarnings()
    for action, message, kind, module, line in filters:
        category = pickle.loads(kind) if isinstance(kind, bytes) else _find_class(*kind)
        if category is not None:
            warnings.filterwarnings(action, message or "", category, module or "", line, append=True)


def _find_class(module: str, name: str) -> Any:
    """None: nobody has imported its module here, so nobody can give such a warning yet."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _set_log(disable: int, takes_warnings: bool, loggers: list[tuple[Any, ...]]) -> None:
    for logger in _configured:
        logger.setLevel(logging.WARNING if logger is logging.root else logging.NOTSET)
        logger.disabled, logger.propagate = False, True
        logger.handlers = [handler for handler in logger.handlers if handler not in _installed]
    _configured.clear()
    _installed.clear()
    logging.disable(disable)
    logging.captureWarnings(takes_warnings)
    for name, level, disabled, propagate, handlers in loggers:
        logger = logging.getLogger(name or None)
        logger.setLevel(level)
        logger.disabled, logger.propagate = disabled, propagate
        _configured.append(logger)
        for described in handlers:
            handler = _make_handler(described)
            _installed.append(handler)
            logger.addHandler(handler)


_configured: list[logging.Logger] = []
_installed: list[logging.Handler] = []


class _Stream(logging.StreamHandler[Any]):
    """Writes to what the stream is when a message comes: a task's may be a file."""

    def __init__(self, name: str) -> None:
        self._of = name
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """The standard stream."""
        return getattr(sys, self._of)


def _make_handler(described: tuple[Any, ...]) -> logging.Handler:
    handler: logging.Handler
    kind, target, encoding, level, formatter, filters = described
    is_file = kind == "FileHandler"
    handler = logging.FileHandler(target, "a", encoding, delay=True) if is_file else _Stream(target)
    handler.setLevel(level)
    with contextlib.suppress(Exception):  # what cannot be made here: as without one
        handler.setFormatter(pickle.loads(formatter))
    with contextlib.suppress(Exception):
        handler.filters = pickle.loads(filters)
    return handler
