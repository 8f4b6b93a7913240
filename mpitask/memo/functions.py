"""What a function or a class is for memoisation: what it does, as far as that is said by the user's own code.

Contents. A function is its name, its code with the constants and the code nested in it, its defaults, attributes and
closure, and the globals that the code reads; of a module of the user's, the attributes that the code reads. A class is
its name, bases and attributes. Functions and classes among these are followed in the same way, whatever decorates
them; other values count as in `identity`. Where the code stands, its comments and annotations do not count.

Libraries. What belongs to Python or to an installed package (or is compiled) is its name: a new version of it is not
noticed. Everything else is the user's own: the script, modules beside it, packages that are installed to be edited.

Not seen is what is reached by a name that is computed: `getattr(module, name)`, `eval`, an environment variable.

Two steps. A `Definition` is what a function or a class is, apart from those values that can change without being
replaced. It is made once, and valid while all that it was made from is the same, by identity. The values are encoded
anew for each key. So a list that a function reads is seen to change, and a function that reads none costs a few
comparisons.

By another rule (`identity.names_only`) a function or a class is its name. Only functions that have no name of their own
(lambdas, and those defined inside functions) are their code, defaults and closure, when they are given as arguments.

Thread rule: every function may be called from any thread.
"""

from __future__ import annotations

import builtins
import dis
import enum
import functools
import importlib.util
import os
import site
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from operator import is_
from pathlib import Path
from typing import Any

from mpitask.memo.identity import NotIdentified, enter, is_by_name, item, name_of, register_own, seal, sequence, text
from mpitask.memo.sources import Imported

_MISSING = object()
_HEAP_TYPE = 1 << 9
_KNOWN_MAX = 512  # definitions of functions and classes that were met in arguments
_CONSTANTS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented)})
_NO_CONTENT = frozenset(
    {"__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__firstlineno__", "__static_attributes__"}
) | {"_abc_impl", "__annotate__", "__annotate_func__", "__slots__"}
_COMPILED = (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType)
_PLACES = (types.MemberDescriptorType, types.GetSetDescriptorType)
_see_through: tuple[type, ...] = (functools._lru_cache_wrapper,)


def see_through(kind: type) -> None:
    """Of objects of this type, only what they wrap (`__wrapped__`) counts."""
    global _see_through
    _see_through += (kind,)


# -- whose code it is --


@functools.cache
def _library_folders() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(name) for name in names] + [site.getusersitepackages()]
    return tuple(os.path.realpath(folder) + os.sep for folder in folders if folder)


@functools.cache
def is_library(module: str) -> bool:
    """Whether a module is Python's, an installed package's or compiled into Python; by its name."""
    top = module.partition(".")[0]
    if module == "__main__":
        return False
    if top in sys.stdlib_module_names or top in ("mpitask", "builtins"):
        return True
    found = sys.modules.get(module)
    file = getattr(found, "__file__", None)
    if not isinstance(file, str):
        return getattr(getattr(found, "__spec__", None), "origin", None) in ("built-in", "frozen")
    return is_library_file(file)


def is_library_file(file: str) -> bool:
    """Whether a file lies where Python or its packages are installed."""
    path = os.path.realpath(file)
    parts = Path(path).parts
    return "site-packages" in parts or "dist-packages" in parts or path.startswith(_library_folders())


def _is_named(obj: Any) -> bool:
    """Whether a function or a class is said by its name: one of a library, not made within a function."""
    module, name = obj.__module__, obj.__qualname__
    if not isinstance(module, str) or "<" in name or not is_library(module):
        return False
    if isinstance(obj, types.FunctionType):
        home = obj.__globals__.get("__name__")
        return isinstance(home, str) and is_library(home)
    if module == "builtins" and obj.__flags__ & _HEAP_TYPE:  # a class that was made without a module
        return getattr(builtins, name, None) is obj
    return True


# -- code --


class _Reads:
    """What a code object refers to, with all the code that is nested in it."""

    __slots__ = ("attributes", "encoded", "imports", "names")

    def __init__(self, code: types.CodeType) -> None:
        self.names: set[str] = set()  # of globals
        self.attributes: set[str] = set()  # any name that it uses
        self.imports: set[tuple[str, int]] = set()  # module, and how many packages up it is relative to
        self._collect(code)
        self.encoded = item(code)

    def _collect(self, code: types.CodeType) -> None:
        self.attributes.update(code.co_names)
        before: list[Any] = [0, 0]
        for step in dis.get_instructions(code):
            if step.opname == "EXTENDED_ARG":
                continue
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                self.names.add(step.argval)
            elif step.opname == "IMPORT_NAME":
                level = before[0] if isinstance(before[0], int) else 0
                self.imports.add((step.argval, level))
                if isinstance(before[1], tuple) and not step.argval:
                    self.imports.update((name, level) for name in before[1])
            before = [before[1], step.argval]
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._collect(constant)


_reads: weakref.WeakKeyDictionary[types.CodeType, _Reads] = weakref.WeakKeyDictionary()


def _reads_of(code: types.CodeType) -> _Reads:
    reads = _reads.get(code)
    if reads is None:
        reads = _reads[code] = _Reads(code)
    return reads


def _code(code: types.CodeType, output_ref: bool = False) -> bytes:  # noqa: ARG001
    """What a code object does; not where it stands."""
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return sequence(b"K", (code.co_code, code.co_exceptiontable, code.co_consts, counts, names), False)


# -- definitions --


def _content_of(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return _MISSING


class Definition:
    """What a function or a class is, apart from `values`; and what has to be the same for this to be true.

    Attributes:
        digest: of all that cannot change without being replaced.
        values: what else it refers to, with words that say where.
    """

    def __init__(self, obj: Any, *, defaults: bool = True) -> None:
        self.values: list[tuple[str, Any]] = []
        self._functions: list[tuple[types.FunctionType, Any, Any, Any]] = []
        self._cells: list[tuple[types.CellType, Any]] = []
        self._names: list[tuple[Mapping[str, Any], str, Any]] = []
        self._mappings: list[tuple[Mapping[Any, Any], list[Any]]] = []
        self._bases: list[tuple[type, Any]] = []
        self._numbers: dict[int, int] = {}
        self._queue: list[Any] = []
        self._refer(obj, "")
        parts = []
        for number, found in enumerate(self._queue):  # which grows meanwhile
            if isinstance(found, type):
                parts.append(seal(b"C", b"%d;" % number + b"".join(self._class(found))))
            else:
                parts.append(seal(b"L", b"%d;" % number + b"".join(self._function(found, defaults or number > 0))))
        self.digest = sha256(b"".join(parts)).digest()
        del self._numbers, self._queue

    def holds(self) -> bool:
        """Whether it is still what it was made from."""
        for names, name, value in self._names:
            if names.get(name, _MISSING) is not value:
                return False
        for fn, code, defaults, keyword_defaults in self._functions:
            if fn.__code__ is not code or fn.__defaults__ is not defaults or fn.__kwdefaults__ is not keyword_defaults:
                return False
        for cell, content in self._cells:
            if _content_of(cell) is not content:
                return False
        for mapping, values in self._mappings:
            if len(mapping) != len(values) or not all(map(is_, mapping.values(), values)):
                return False
        return all(cls.__bases__ is bases for cls, bases in self._bases)

    # -- what it refers to --

    def _refer(  # noqa: PLR0911 - one for each kind
        self, value: Any, where: str, attributes: set[str] | None = None
    ) -> bytes:
        """The encoding of a reference. Functions and classes are queued; `attributes` are what is read of a module."""
        kind = type(value)
        if value is _MISSING:
            return b"X"
        if kind in _CONSTANTS:
            return item(value)
        if isinstance(value, types.FunctionType | type):
            if _is_named(value):
                return name_of(value)
            number = self._numbers.setdefault(id(value), len(self._queue))
            if number == len(self._queue):
                self._queue.append(value)
            return b"@%d;" % number
        if isinstance(value, types.ModuleType) and (attributes is not None or is_library(value.__name__)):
            return self._module(value, where, attributes or set(), set())
        if isinstance(value, _PLACES):
            return text(value.__name__)
        if isinstance(value, _COMPILED) and isinstance(getattr(value, "__self__", None), types.ModuleType | type(None)):
            return item(value)
        inner = _wrapped_in(value)
        if inner is not None:
            return seal(b"W", item(type(value)) + b"".join([self._refer(part, where) for part in inner]))
        if kind in (tuple, frozenset) and all(type(part) in _CONSTANTS for part in value):
            return item(value)
        self.values.append((where, value))
        return b"V%d;" % (len(self.values) - 1)

    def _module(self, module: types.ModuleType, where: str, attributes: set[str], seen: set[int]) -> bytes:
        if is_library(module.__name__) or id(module) in seen:
            return seal(b"M", text(module.__name__))
        seen.add(id(module))
        names = vars(module)
        parts = [text(module.__name__)]
        for name in sorted(attributes & names.keys()):
            value = names[name]
            self._names.append((names, name, value))
            path = f"{where}.{name}"
            nested = isinstance(value, types.ModuleType)
            parts.append(text(name))
            parts.append(self._module(value, path, attributes, seen) if nested else self._refer(value, path))
        return seal(b"M", b"".join(parts))

    def _function(self, fn: types.FunctionType, defaults: bool) -> Iterator[bytes]:
        name = f"{fn.__module__}.{fn.__qualname__}"
        reads = _reads_of(fn.__code__)
        yield text(name)
        yield reads.encoded
        self._functions.append((fn, fn.__code__, fn.__defaults__, fn.__kwdefaults__))
        registry = vars(fn).get("registry")
        if isinstance(registry, types.MappingProxyType) and "dispatch" in vars(fn):  # functools.singledispatch
            self._mappings.append((registry, list(registry.values())))
            for part in _by_class(registry):
                yield self._refer(part, name)
            return
        if defaults:
            for value in fn.__defaults__ or ():
                yield self._refer(value, f"a default of {name}")
            for key, value in sorted((fn.__kwdefaults__ or {}).items()):
                yield text(key) + self._refer(value, f"the default of {key!r} of {name}")
        for key, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False):
            content = _content_of(cell)
            self._cells.append((cell, content))
            yield self._refer(content, f"{key!r}, to which {name} is bound", reads.attributes)
        yield b"/"
        yield from self._attributes(fn, name)
        home = fn.__globals__.get("__name__")
        if not (isinstance(home, str) and is_library(home)):
            yield from self._globals(fn, reads, name)

    def _attributes(self, fn: types.FunctionType, name: str) -> Iterator[bytes]:
        own = vars(fn)
        self._mappings.append((own, list(own.values())))
        for key, value in sorted(own.items()):
            yield text(key) + self._refer(value, f"the attribute {key!r} of {name}")

    def _globals(self, fn: types.FunctionType, reads: _Reads, name: str) -> Iterator[bytes]:
        names = fn.__globals__
        for key in sorted(reads.names):
            value = names.get(key, _MISSING)
            self._names.append((names, key, value))
            yield text(key) + self._refer(value, f"the global {key!r}, which {name} reads", reads.attributes)
        for module, level in sorted(reads.imports):
            try:
                full = f"{'.' * level}{module}"
                full = full if not level else _absolute(full, names.get("__package__"))
            except ImportError:
                continue
            if not is_library(full):
                self.values.append((f"the module {full}, which {name} imports", Imported(full)))

    def _class(self, cls: type) -> Iterator[bytes]:
        name = f"{cls.__module__}.{cls.__qualname__}"
        own = vars(cls)
        self._bases.append((cls, cls.__bases__))
        self._mappings.append((own, list(own.values())))
        yield text(name)
        for base in (type(cls), *cls.__bases__):
            yield self._refer(base, name)
        yield b"/"
        members: Mapping[str, Any] = cls.__members__ if isinstance(cls, enum.EnumMeta) else {}
        for key, member in members.items():
            yield text(key) + self._refer(member.value, f"{name}.{key}")
        yield b"/"
        for key, value in sorted(own.items()):
            if key not in members and _is_content(key, value, bool(members)):
                yield text(key) + self._refer(value, f"the attribute {key!r} of {name}")


def _absolute(name: str, package: Any) -> str:
    return importlib.util.resolve_name(name, package if isinstance(package, str) else None)


def _wrapped_in(value: Any) -> tuple[Any, ...] | None:
    """What counts of an object that decorates functions; None: it is no such object."""
    if isinstance(value, staticmethod | classmethod):
        return (value.__func__,)
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    if isinstance(value, functools.cached_property):
        return (value.func,)
    if isinstance(value, functools.singledispatchmethod):
        return value.func, *_by_class(value.dispatcher.registry)
    if isinstance(value, _see_through):
        inner = getattr(value, "__wrapped__", None)
        return None if inner is None else (inner,)
    return None


def _by_class(registry: Mapping[type, Any]) -> list[Any]:
    """The classes and functions of a dispatcher, in an order that does not depend on who came first."""
    ordered = sorted(registry.items(), key=lambda pair: (pair[0].__module__, pair[0].__qualname__))
    return [part for pair in ordered for part in pair]


def _is_content(key: str, value: Any, of_enum: bool) -> bool:
    """Whether an attribute of a class says something of it; what Python and class decorators note there does not."""
    if key in _NO_CONTENT:
        return False
    if key.startswith("__") and key.endswith("__"):
        return isinstance(value, types.FunctionType) or type(value) in _CONSTANTS or _wrapped_in(value) is not None
    if of_enum and key.startswith("_") and key.endswith("_"):
        return isinstance(value, types.FunctionType | staticmethod | classmethod)
    return True


# -- encodings --

_known: dict[int, tuple[Any, Definition | bytes]] = {}  # by id; bytes: it is its name


def _known_of(obj: Any) -> Definition | bytes:
    """The definition of a function or a class, or its name where that says all."""
    entry = _known.get(id(obj))
    if entry is not None and entry[0] is obj:
        known = entry[1]
        if isinstance(known, bytes) or known.holds():
            return known
    known = name_of(obj) if _is_named(obj) else Definition(obj)
    if "<" not in obj.__qualname__:  # others come and go
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
        _known[id(obj)] = obj, known
    return known


def with_values(definition: Definition) -> bytes:
    """The encoding of a function or a class now.

    Raises:
        NotIdentified: it refers to something that cannot be identified.
    """
    parts = [definition.digest]
    for where, value in definition.values:
        try:
            parts.append(item(value))
        except NotIdentified:
            raise
        except ValueError as error:
            raise NotIdentified(where, getattr(error, "what", str(error))) from error
    return seal(b"F", b"".join(parts))


def _by_content(obj: Any, output_ref: bool = False) -> bytes:
    known = _known_of(obj)
    return known if isinstance(known, bytes) else enter(obj, output_ref, lambda *_: with_values(known))


def _type(cls: type, output_ref: bool = False) -> bytes:
    return name_of(cls) if is_by_name() else _by_content(cls, output_ref)


def _function(fn: types.FunctionType, output_ref: bool = False) -> bytes:
    if not is_by_name():
        return _by_content(fn, output_ref)
    return name_id(fn) if "<" not in fn.__qualname__ else enter(fn, output_ref, _nameless)


def _nameless(fn: types.FunctionType, output_ref: bool) -> bytes:
    contents = [_content_of(cell) for cell in fn.__closure__ or ()]
    closure = b"".join([b"X" if content is _MISSING else item(content) for content in contents])
    parts = seal(b"Q", text(f"{fn.__module__}\0{fn.__qualname__}") + item(fn.__code__) + closure)
    return seal(b"L", parts + item((fn.__defaults__, fn.__kwdefaults__), output_ref))


def _module(module: types.ModuleType, output_ref: bool = False) -> bytes:  # noqa: ARG001
    if is_by_name() or is_library(module.__name__):
        return seal(b"M", text(module.__name__))
    return seal(b"M", item(Imported(module.__name__)))


def _imported(module: Imported, output_ref: bool = False) -> bytes:
    if is_by_name():
        return text(module.name)
    return sequence(b"m", (module.name, *module.content(is_library, is_library_file)), output_ref)


register_own(types.CodeType, _code)
register_own(types.FunctionType, _function)
register_own(type, _type)
register_own(types.ModuleType, _module)
register_own(Imported, _imported)


def _is_bound(fn: Any) -> bool:
    owner = getattr(fn, "__self__", None)
    return owner is not None and not isinstance(owner, types.ModuleType)


def name_id(fn: Callable[..., Any]) -> bytes:
    """A function by the rule that it is its module and qualified name; any other callable is what it holds.

    A lambda has no name of its own, so its code belongs to it.
    """
    name = getattr(fn, "__qualname__", None)
    if not isinstance(name, str) or _is_bound(fn):
        return item(fn)
    parts = [text(f"{getattr(fn, '__module__', None)}\0{name}")]
    code = getattr(fn, "__code__", None)
    if code is not None and name.endswith("<lambda>"):
        parts.append(_code(code))
    return seal(b"Q", b"".join(parts))
