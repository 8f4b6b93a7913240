"""Whether a function that goes by value still refers to what it referred to when it was sent.

`watch` looks once, transitively, at what a function (or class) of the script refers to: globals, what its closure
holds, and the entries of classes; also those that helpers of the script refer to. It makes a check that compares all of
it by identity. What is inside a list, a dict or an instance is not looked at.

The check holds what it compares with weakly where that is possible, so that nothing lives on because it was sent:
a function may well be reachable from what it refers to. What cannot be held weakly (numbers, text, lists) is held. It
is never the function itself.

A check takes about 50 ns, and 10 (a number, a module) to 30 ns (a function, a class) for each name.

Ours that wrap a function name the attributes that hold it in `WRAPS`.

Thread rule: any thread.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import functools
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from mpitask.pickling import goes_by_value

Check = Callable[[Any], bool]
"""Given the function: whether all is as it was."""

_HELD = frozenset({int, float, complex, bool, str, bytes, type(None), types.ModuleType, types.BuiltinFunctionType})
_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})


def watch(fn: Any) -> Check | None:
    """The check for a callable; None: there is nothing to compare."""
    if isinstance(fn, types.FunctionType | type) and not goes_by_value(fn):
        return None
    walk = _Walk(fn)
    if not walk.lines:
        return None
    names = "".join(f", v{i}" for i in range(len(walk.values)))
    text = f"def check(fn{names}):\n try:\n  {walk.text()}\n except Exception:\n  return False"
    return types.FunctionType(_compiled(text), {}, "check", tuple(walk.values))


@functools.lru_cache(maxsize=1024)
def _compiled(text: str) -> types.CodeType:
    code: types.CodeType = compile(text, "<mpitask watch>", "exec").co_consts[0]
    return code


class _Walk:
    """Collects what has to be compared, as the lines of a function and the values that it compares with."""

    def __init__(self, fn: Any) -> None:
        self.lines: list[str] = []
        self.values: list[Any] = []
        self._seen: set[int] = set()
        self._places: set[tuple[int, str]] = set()
        self._todo = [("fn", fn)]
        while self._todo:
            self._add(*self._todo.pop())

    def text(self) -> str:
        """The lines."""
        return "\n  ".join([*self.lines, "return True"])

    def _add(self, where: str, obj: Any) -> None:
        """Everything that `obj` refers to, which the expression `where` gives."""
        self._seen.add(id(obj))
        if isinstance(obj, types.FunctionType):
            self._add_function(where, obj)
        elif isinstance(obj, type):
            self._add_class(where, obj)
        for part in _parts_of(obj):
            self._visit(part)

    def _visit(self, obj: Any) -> None:
        """What is compared itself, or part of what is."""
        if id(obj) in self._seen or type(obj) in _HELD:
            return
        self._seen.add(id(obj))
        if not isinstance(obj, types.FunctionType | type):
            self._todo.append(("", obj))
        elif goes_by_value(obj):
            self._todo.append((f"v{len(self.values)}()", obj))
            self.values.append(weakref.ref(obj))

    def _compare(self, place: str, value: Any, *, is_method: bool = False) -> None:
        kept = f"v{len(self.values)}"
        if type(value) not in _HELD and not is_method:
            with contextlib.suppress(TypeError):
                self.values.append(weakref.ref(value))  # gives None when it is gone, which may have taken its place
                self.lines.append(f"if (x := {place}) is None or x is not {kept}(): return False")
                return
        self.values.append(value)
        self.lines.append(f"if {place} is not {kept}: return False")

    def _add_function(self, where: str, fn: types.FunctionType) -> None:
        space, found = fn.__globals__, []
        names = [name for name in _names_of(fn.__code__) if (id(space), name) not in self._places]
        if names:
            self.lines.append(f"g = {where}.__globals__")
        for name in names:
            self._places.add((id(space), name))
            if name in space:
                self._compare(f"g[{name!r}]", space[name])
                found.append(space[name])
            elif not hasattr(builtins, name):
                self.lines.append(f"if {name!r} in g: return False")
        for i, cell in enumerate(fn.__closure__ or ()):
            with contextlib.suppress(ValueError):  # it is empty
                self._compare(f"{where}.__closure__[{i}].cell_contents", cell.cell_contents)
                found.append(cell.cell_contents)
        for value in found:
            self._visit(value)

    def _add_class(self, where: str, cls: type) -> None:
        self.lines += [f"d = {where}.__dict__", f"if len(d) != {len(vars(cls))}: return False"]
        entries = [(name, value) for name, value in vars(cls).items() if _is_watched(name, value)]
        for name, value in entries:
            is_method = isinstance(value, types.FunctionType) and not value.__closure__  # which refers to no class
            self._compare(f"d[{name!r}]", value, is_method=is_method)
        for value in (*vars(cls).values(), *cls.__bases__):
            self._visit(value)


def _is_watched(name: str, value: Any) -> bool:
    """Whether an entry of a class is compared: those that nobody replaces are not, and descriptors hold their class."""
    if name.startswith("__"):
        return name in ("__init__", "__call__")
    return not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType) and name != "_abc_impl"


def _parts_of(obj: Any) -> Iterator[Any]:
    """What a callable, or an entry of a class, is made of."""
    if isinstance(obj, types.FunctionType | type):
        return
    if isinstance(obj, functools.partial):
        yield from (obj.func, *obj.args, *obj.keywords.values())
    elif isinstance(obj, staticmethod | classmethod | types.MethodType):
        yield obj.__func__
        yield type(getattr(obj, "__self__", None))
    elif isinstance(obj, property):
        yield from (obj.fget, obj.fset, obj.fdel)
    elif isinstance(obj, functools.partialmethod | functools.cached_property):
        yield obj.func
    else:
        inner = None
        with contextlib.suppress(Exception):  # it may have attributes of its own kind
            inner = obj.__dict__
        if isinstance(inner, dict):
            yield from (
                inner[name]
                for name in ("__wrapped__", *inner.get("WRAPS", getattr(type(obj), "WRAPS", ())))
                if name in inner
            )
        yield type(obj)


@functools.lru_cache(maxsize=4096)
def _names_of(code: types.CodeType) -> tuple[str, ...]:
    """The globals that code reads, that of the functions which it makes included."""
    names = {str(line.argval): None for line in dis.get_instructions(code) if line.opname in _GLOBALS}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(dict.fromkeys(_names_of(constant)))
    return tuple(names)
