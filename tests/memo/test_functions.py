"""What a function is for memoisation: whatever of the user's own decides what it does."""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import gc
import importlib
import os
import pathlib
import subprocess
import sys
import threading
import timeit
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from mpitask.memo import Identity, NotIdentified, id_for_memo, make_key
from mpitask.memo.functions import is_library


def make(source: str, **names: Any) -> Any:
    """The function f of a script."""
    namespace: dict[str, Any] = {"__name__": "__main__"} | names
    exec(source, namespace)
    return namespace["f"]


def adder(n: Any) -> Any:
    def add(x: Any) -> Any:
        return x + n

    return add


def twice(fn: Any) -> Any:
    @functools.wraps(fn)
    def inner(x: Any) -> Any:
        return fn(fn(x))

    return inner


class Scale:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def __call__(self, x: Any) -> Any:
        return x * self.factor

    def method(self, x: Any) -> Any:
        return x + self.factor


# Pairs of scripts whose f gives different results, though it has one name and gets the same arguments.
EDITS = {
    "body": ("def f(x): return x", "def f(x): return x + 1"),
    "constant": ("def f(x): return x + 1", "def f(x): return x + 1.0"),
    "nested code": (
        "def f(x):\n def g(): return 1\n return g()",
        "def f(x):\n def g(): return 2\n return g()",
    ),
    "default": ("def f(x, y=1): return y", "def f(x, y=2): return y"),
    "keyword default": ("def f(x, *, y=1): return y", "def f(x, *, y=2): return y"),
    "global": ("k = 1\ndef f(x): return k", "k = 2\ndef f(x): return k"),
    "global in nested code": (
        "k = 1\ndef f(x): return [k for _ in (x, (lambda: k)())]",
        "k = 2\ndef f(x): return [k for _ in (x, (lambda: k)())]",
    ),
    "builtin that is replaced": ("def f(x): return abs(x)", "def abs(x): return 0\ndef f(x): return abs(x)"),
    "content of a global": ("k = {'a': [1]}\ndef f(x): return k", "k = {'a': [2]}\ndef f(x): return k"),
    "helper": ("def g(x): return x\ndef f(x): return g(x)", "def g(x): return x + 1\ndef f(x): return g(x)"),
    "global of a helper": (
        "k = 1\ndef g(x): return k\ndef f(x): return g(x)",
        "k = 2\ndef g(x): return k\ndef f(x): return g(x)",
    ),
    "default of a helper": ("def g(x=1): return x\ndef f(x): return g()", "def g(x=2): return x\ndef f(x): return g()"),
    "helper in a table": (
        "t = {'a': lambda x: x}\ndef f(x): return t['a'](x)",
        "t = {'a': lambda x: -x}\ndef f(x): return t['a'](x)",
    ),
    "attribute of the function": ("def f(x): return f.k\nf.k = 1", "def f(x): return f.k\nf.k = 2"),
    "method of a class": (
        "class C:\n def m(self): return 1\ndef f(x): return C().m()",
        "class C:\n def m(self): return 2\ndef f(x): return C().m()",
    ),
    "method of a base": (
        "class B:\n def m(self): return 1\nclass C(B): pass\ndef f(x): return C().m()",
        "class B:\n def m(self): return 2\nclass C(B): pass\ndef f(x): return C().m()",
    ),
    "metaclass": (
        "class M(type):\n def m(cls): return 1\nclass C(metaclass=M): pass\ndef f(x): return C.m()",
        "class M(type):\n def m(cls): return 2\nclass C(metaclass=M): pass\ndef f(x): return C.m()",
    ),
    "class attribute": ("class C: k = 1\ndef f(x): return C.k", "class C: k = 2\ndef f(x): return C.k"),
    "content of a class attribute": (
        "class C: k = [1]\ndef f(x): return C.k",
        "class C: k = [2]\ndef f(x): return C.k",
    ),
    "property": (
        "class C:\n @property\n def p(self): return 1\ndef f(x): return C().p",
        "class C:\n @property\n def p(self): return 2\ndef f(x): return C().p",
    ),
    "cached property": (
        "import functools\nclass C:\n @functools.cached_property\n def p(self): return 1\ndef f(x): return C().p",
        "import functools\nclass C:\n @functools.cached_property\n def p(self): return 2\ndef f(x): return C().p",
    ),
    "static and class methods": (
        "class C:\n @staticmethod\n def s(): return 1\n @classmethod\n def c(cls): return 1\ndef f(x): return C.c()",
        "class C:\n @staticmethod\n def s(): return 1\n @classmethod\n def c(cls): return 2\ndef f(x): return C.c()",
    ),
    "class of an object": (
        "class C:\n def m(self): return 1\nc = C()\ndef f(x): return c.m()",
        "class C:\n def m(self): return 2\nc = C()\ndef f(x): return c.m()",
    ),
    "object": (
        "class C:\n def __init__(self, k): self.k = k\nc = C(1)\ndef f(x): return c.k",
        "class C:\n def __init__(self, k): self.k = k\nc = C(2)\ndef f(x): return c.k",
    ),
    "dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n k: int = 1\ndef f(x): return C().k",
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n k: int = 2\ndef f(x): return C().k",
    ),
    "factory of a dataclass": (
        "import dataclasses as d\n@d.dataclass\nclass C:\n k: int = d.field(default_factory=lambda: 1)\n"
        "def f(x): return C()",
        "import dataclasses as d\n@d.dataclass\nclass C:\n k: int = d.field(default_factory=lambda: 2)\n"
        "def f(x): return C()",
    ),
    "enum": (
        "import enum\nclass E(enum.Enum):\n A = 1\ndef f(x): return E.A.value",
        "import enum\nclass E(enum.Enum):\n A = 2\ndef f(x): return E.A.value",
    ),
    "lru_cache": (
        "import functools\n@functools.lru_cache\ndef g(x): return 1\ndef f(x): return g(x)",
        "import functools\n@functools.lru_cache\ndef g(x): return 2\ndef f(x): return g(x)",
    ),
    "singledispatch": (
        "import functools\n@functools.singledispatch\ndef g(x): return 1\n@g.register(int)\ndef _(x): return 1\n"
        "def f(x): return g(x)",
        "import functools\n@functools.singledispatch\ndef g(x): return 1\n@g.register(int)\ndef _(x): return 2\n"
        "def f(x): return g(x)",
    ),
    "context manager": (
        "import contextlib\n@contextlib.contextmanager\ndef g(): yield 1\ndef f(x):\n with g() as k: return k",
        "import contextlib\n@contextlib.contextmanager\ndef g(): yield 2\ndef f(x):\n with g() as k: return k",
    ),
    "decorator": (
        "def d(g): return lambda x: g(x) + 1\n@d\ndef f(x): return x",
        "def d(g): return lambda x: g(x) + 2\n@d\ndef f(x): return x",
    ),
    "wrapped": (
        "import functools\ndef d(g):\n @functools.wraps(g)\n def w(*a): return g(*a)\n return w\n"
        "@d\ndef f(x): return x",
        "import functools\ndef d(g):\n @functools.wraps(g)\n def w(*a): return g(*a)\n return w\n"
        "@d\ndef f(x): return -x",
    ),
    "partial": (
        "import functools\ndef g(k, x): return k\nf = functools.partial(g, 1)",
        "import functools\ndef g(k, x): return k\nf = functools.partial(g, 2)",
    ),
    "function of a partial": (
        "import functools\ndef g(k, x): return k\nf = functools.partial(g, 1)",
        "import functools\ndef g(k, x): return -k\nf = functools.partial(g, 1)",
    ),
    "bound method": (
        "class C:\n def __init__(self, k): self.k = k\n def m(self, x): return self.k\nf = C(1).m",
        "class C:\n def __init__(self, k): self.k = k\n def m(self, x): return self.k\nf = C(2).m",
    ),
    "callable object": (
        "class C:\n def __call__(self, x): return 1\nf = C()",
        "class C:\n def __call__(self, x): return 2\nf = C()",
    ),
    "which of two": (
        "g, h = (lambda x: 1), (lambda x: 2)\ndef f(x): return g(x)",
        "h, g = (lambda x: 1), (lambda x: 2)\ndef f(x): return g(x)",
    ),
    "app": (
        "from mpitask import python_app\n@python_app\ndef g(x): return 1\ndef f(x): return g(x)",
        "from mpitask import python_app\n@python_app\ndef g(x): return 2\ndef f(x): return g(x)",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_decides_the_result_is_in_the_key(name: str) -> None:
    before, after = (make(source) for source in EDITS[name])
    again = make(EDITS[name][0])
    assert make_key(before, (1,), {}) != make_key(after, (1,), {})
    assert make_key(before, (1,), {}) == make_key(again, (1,), {})
    assert make_key(abs, (before,), {}) != make_key(abs, (after,), {}) or name in ("default", "keyword default")
    assert make_key(abs, ([before],), {}) == make_key(abs, ([again],), {})


@pytest.mark.parametrize(
    "source",
    [
        "\n\n\ndef f(x):\n    # a comment\n    return (x)",
        "other = 5\ndef g(): pass\ndef f(x): return x",
        "def f(x: 'int') -> 'int': return x",
    ],
)
def test_what_does_not_decide_it_is_not(source: str) -> None:
    assert make_key(make(source), (1,), {}) == make_key(make("def f(x): return x"), (1,), {})


def test_what_is_put_in_for_an_argument_counts_as_an_argument() -> None:
    one, two = make("def f(x, y=1): return y"), make("def f(x, y=2): return y")
    assert make_key(one, (1, 5), {}) == make_key(two, (1, 5), {})
    assert make_key(one, (1,), {}, ["y"]) == make_key(two, (1,), {}, ["y"])
    assert make_key(one, (1,), {}) == make_key(two, (1, 1), {})


# -- one function, watched --


def test_changes_are_seen() -> None:
    """Each replaces or changes something between two calls of the same function."""
    fn = make(
        "class C:\n k = 1\n def m(self): return 1\n"
        "def g(x): return x\n"
        "def outer():\n n = 1\n def f(x):\n  return n, k, items, C().m(), g(x), m.k\n"
        " def set_n(v):\n  nonlocal n\n  n = v\n return f, set_n\n"
        "f, set_n = outer()",
        k=1,
        items=[1],
        m=types.ModuleType("a_module_of_mine"),
    )
    names = fn.__globals__
    names["m"].k = 1
    identity = Identity(fn)
    seen = [identity.now()]

    def changed(change: Callable[[], Any]) -> None:
        assert identity.now() == seen[-1]
        change()
        assert identity.now() not in seen
        seen.append(identity.now())

    changed(lambda: names.update(k=2))
    changed(lambda: names["items"].append(2))
    changed(lambda: names["set_n"](2))
    changed(lambda: setattr(names["C"], "k", 2))
    changed(lambda: setattr(names["C"], "new", 2))
    changed(lambda: setattr(names["C"], "m", lambda self: 2))
    changed(lambda: names.update(g=lambda x: x + 1))
    changed(lambda: setattr(names["g"], "__defaults__", (1,)))
    changed(lambda: setattr(names["g"], "__code__", (lambda x: x + 2).__code__))
    changed(lambda: setattr(names["m"], "k", 2))
    changed(lambda: setattr(fn, "note", 2))
    changed(lambda: names.pop("k"))
    names.update(k=2)
    assert identity.now() == seen[-2]


def test_a_function_that_refers_to_itself() -> None:
    recursive = make("def g(n): return f(n - 1)\ndef f(n): return g(n) if n else t\nt = [f]")
    other = make("def g(n): return f(n - 2)\ndef f(n): return g(n) if n else t\nt = [f]")
    assert make_key(recursive, (1,), {}) == make_key(recursive, (1,), {}) != make_key(other, (1,), {})


def test_many_helpers_take_no_time() -> None:
    """Each of 60 layers calls both functions of the next one: 2^60 ways."""
    layers = [
        f"def a{i}(x): return a{i + 1}(x) + b{i + 1}(x)\ndef b{i}(x): return a{i + 1}(b{i + 1}(x))" for i in range(60)
    ]
    source = "\n".join(layers) + "\ndef a60(x): return {}\ndef b60(x): return x\ndef f(x): return a0(x)"
    assert make_key(make(source.format(1)), (1,), {}) != make_key(make(source.format(2)), (1,), {})


def test_a_long_chain_of_helpers() -> None:
    source = "\n".join(f"def a{i}(x): return a{i + 1}(x)" for i in range(3000)) + "\ndef f(x): return a0(x)"
    ends = [make(f"{source}\ndef a3000(x): return {i}") for i in (1, 2)]
    assert make_key(ends[0], (1,), {}) != make_key(ends[1], (1,), {})


def test_what_cannot_be_identified_is_named() -> None:
    for source, where in (
        ("def f(x): return k", r"the global 'k', which __main__\.f reads: a value of type _thread\.lock"),
        ("def g(y=k): return y\ndef f(x): return g()", r"a default of __main__\.g"),
        ("class C: lock = k\ndef f(x): return C", r"the attribute 'lock' of __main__\.C"),
    ):
        with pytest.raises(NotIdentified, match=where):
            make_key(make(source, k=threading.Lock()), (1,), {})
    with pytest.raises(NotIdentified, match="'lock' of"):
        make_key(abs, (make("class f: lock = k", k=threading.Lock())(),), {})


def test_functions_and_classes_are_not_kept_alive() -> None:
    def made() -> tuple[Any, Any]:
        class Own:
            def method(self) -> Any:
                return Own

        def closure() -> Any:
            return closure, Own

        return closure, Own

    closure, own = made()
    make_key(closure, (own(),), {})
    watched = [weakref.ref(closure), weakref.ref(own)]
    del closure, own
    gc.collect()
    assert [ref() for ref in watched] == [None, None]


# -- whose code --


def test_libraries_are_their_names() -> None:
    for name in ("os.path", "json", "builtins", "numpy", "numpy.linalg", "cloudpickle", "mpitask.memo.keys", "sys"):
        importlib.import_module(name)
        assert is_library(name)
    assert not is_library("__main__")
    assert not is_library(__name__)
    for value in (np.sum, functools.wraps, abc.ABC, dict, NamedTuple, dataclasses.dataclass, enum.Enum, os.path.join):
        assert id_for_memo(value) == id_for_memo(value)


MODULE = """
import helper_of_{name}
scale = {scale}
def triple(x): return x * scale
def unused(): return {unused}
def through(x): return helper_of_{name}.go(x)
"""


def modules(folder: pathlib.Path, name: str, scale: int = 3, unused: int = 0, deep: int = 1) -> None:
    (folder / f"{name}.py").write_text(MODULE.format(name=name, scale=scale, unused=unused))
    (folder / f"helper_of_{name}.py").write_text(f"def go(x): return x + {deep}\n")


CALLS = """
import sys
from mpitask.memo import make_key
import {name}
from {name} import triple
def by_attribute(x): return {name}.triple(x)
def by_name(x): return triple(x)
def deep(x): return {name}.through(x)
def local(x):
    from {name} import triple
    return triple(x)
def local_module(x):
    import {name} as m
    return m
print(*[make_key(fn, (1,), {{}}) for fn in (by_attribute, by_name, deep, local, local_module, {name}.triple)])
"""


def test_helpers_in_modules_of_the_user(tmp_path: pathlib.Path) -> None:
    """Edited between two runs, as between a checkpoint and the run that would use it."""

    def keys(**edit: int) -> list[str]:
        modules(tmp_path, "mine", **edit)
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", CALLS.format(name="mine")],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=environment,
        )
        return done.stdout.split()

    def same(edited: list[str]) -> list[bool]:
        return [a == b for a, b in zip(first, edited, strict=True)]

    first = keys()
    assert keys() == first
    assert same(keys(scale=4)) == [False, False, True, False, False, False]
    assert same(keys(unused=1)) == [True, True, True, False, False, True]  # what is imported on the way is a file
    assert same(keys(deep=2)) == [True, True, False, False, False, True]


def test_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    def best_us(identity: Identity) -> float:
        return min(timeit.repeat(identity.now, number=1000, repeat=10)) * 1e3

    plain = best_us(Identity(make("k = 1\ndef g(x): return k\ndef f(x): return g(x)")))
    values = best_us(Identity(make("k = [1, 2]\ndef g(x): return k\ndef f(x): return g(x)")))
    with capsys.disabled():
        print(f"\n  what a function is: {plain:.1f} µs; of one that reads a list: {values:.1f} µs")
