# ruff: noqa: E501
"""What a function of the script refers to is looked at when it is called; and functions that are gone leave nothing."""

from __future__ import annotations

import pytest

from helpers.processes import Launcher

HOWS = {
    "app": "app = python_app(work)\ndef call(x): return app(x).result(30)",
    "app-kwargs": "app = python_app(work)\ndef call(x): return app(x=x).result(30)",
    "app-kernel": "app = python_app(work, cache=False, retries=1)\ndef call(x): return app(x, walltime=30).result(30)",
    "executor": "ex = mpitask.Executor()\ndef call(x): return ex.submit(work, x).result(30)",
    "map": "def call(x): return mpitask.map(work, [x]).result(30)[0]",
}
CASES = {
    "constant": ("N = 1\ndef work(x, **_): return x + N", "N = 2"),
    "helper": ("def help_(x): return x + 1\ndef work(x, **_): return help_(x)", "def help_(x): return x + 2"),
    "helper's constant": ("N = 1\ndef help_(x): return x + N\ndef work(x, **_): return help_(x)", "N = 2"),
    "class": ("class C:\n    n = 1\ndef work(x, **_): return x + C.n", "class C:\n    n = 2"),
    "class attribute": ("class C:\n    n = 1\ndef work(x, **_): return x + C.n", "C.n = 2"),
    "base's attribute": ("class B:\n    n = 1\nclass C(B): pass\ndef work(x, **_): return x + C.n", "B.n = 2"),
    "new class attribute": ("class B:\n    n = 1\nclass C(B): pass\ndef work(x, **_): return x + C.n", "C.n = 2"),
    "method": ("class C:\n    def f(self): return 1\ndef work(x, **_): return x + C().f()", "C.f = lambda self: 2"),
    "method's constant": ("N = 1\nclass C:\n    def f(self): return N\ndef work(x, **_): return x + C().f()", "N = 2"),
    "static method's": ("N = 1\nclass C:\n    @staticmethod\n    def f(): return N\ndef work(x, **_): return x + C.f()", "N = 2"),
    "property's": ("N = 1\nclass C:\n    @property\n    def f(self): return N\ndef work(x, **_): return x + C().f", "N = 2"),
    "instance's class": ("class C:\n    n = 1\nc = C()\ndef work(x, **_): return x + c.n", "C.n = 2"),
    "closure": ("def make():\n    n = 1\n    def work(x, **_): return x + n\n    def change():\n        nonlocal n\n        n = 2\n    return work, change\n"
                "work, change = make()", "change()"),
    "inner function": ("N = 1\ndef work(x, **_):\n    def inner(): return N\n    return x + inner()", "N = 2"),
    "comprehension": ("N = 1\ndef work(x, **_): return sum([N for _ in range(1)], x)", "N = 2"),
    "partial": ("def f(a, x): return a + x\np = functools.partial(f, 1)\ndef work(x, **_): return p(x)", "p = functools.partial(f, 2)"),
    "partial's function's": ("N = 1\ndef f(a, x): return N + x\np = functools.partial(f, 1)\ndef work(x, **_): return p(x)", "N = 2"),
    "cached": ("N = 1\n@functools.cache\ndef f(x): return x + N\ndef work(x, **_): return f(x)", "N = 2"),
    "app": ("N = 1\n@python_app\ndef f(x): return x + N\ndef work(x, **_): return f(x).result()", "N = 2"),
    "defined later": ("def work(x, **_):\n    try: return x + LATER\n    except NameError: return x + 1", "LATER = 2"),
    "becomes None": ("class C: pass\nc = C()\ndef work(x, **_): return x + (2 if c is None else 1)", "c = None"),
    "deleted": ("N = 1\ndef work(x, **_):\n    try: return x + N\n    except NameError: return x + 2", "del N"),
    "array": ("import numpy as np\nN = np.ones(3)\ndef work(x, **_): return x + int(N[0])", "N = np.full(3, 2.0)"),
}  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
def test_what_has_changed_is_sent_anew(launcher: Launcher, how: str) -> None:
    source = "import functools, gc, mpitask\nfrom mpitask import python_app\nbad = []\n"
    for name, (before, after) in CASES.items():
        source += (
            "space = {'__name__': '__main__', 'mpitask': mpitask, 'python_app': python_app, 'functools': functools}\n"
        )
        source += f"exec({before!r} + '\\n' + {HOWS[how]!r}, space)\ncall = space['call']\n"
        source += f"got = [call(1), call(1)]\nexec({after!r}, space)\ngc.collect()\ngot += [call(1), call(1)]\n"
        source += f"if got != [2, 2, 3, 3]: bad.append(({name!r}, got))\n"
    result = launcher.run(source + "print(bad or 'ok')\n", options=["--workers", "2"])
    assert (result.rc, result.out) == (0, "ok\n"), result.err


def test_what_has_not_changed_is_sent_once(launcher: Launcher) -> None:
    result = launcher.run(
        """
import mpitask, functools, collections
from mpitask import python_app
N, L = 1, []
class C:
    def __init__(self): self.x = 1
Point = collections.namedtuple("Point", "x")
@functools.cache
def cached(x): return x
def f(x, again=True): return x + N + len(L) + C().x + cached(0) + (f(0, False) if again else 0) + Point(0).x + missing()
def missing(): return 0 if True else no_such_name
app = python_app(f)
ex = mpitask.Executor()
for i in range(100):
    if i == 2: objects = mpitask.current().stats()["objects"]
    app(i).result(), ex.submit(f, i).result()
    L.append(0)  # what is in a list is not looked at
    U = i
assert mpitask.current().stats()["objects"] == objects, mpitask.current().stats()
print("ok", app(0).result())
""",
        options=["--workers", "1"],
    )
    assert (result.rc, result.out) == (0, "ok 4\n"), result.err


def test_functions_that_are_gone_are_let_go(launcher: Launcher) -> None:
    result = launcher.run(
        """
import gc, time, mpitask
from mpitask import python_app
engine, ex = mpitask.current(), mpitask.Executor()

class Kept:
    def __init__(self): self.fn = lambda x: self and x

def make(i):
    def recursive(x): return recursive and x + i
    class Local:
        def f(self): return super() and i
    kept = Kept()
    kept.apps = [python_app(recursive), python_app(lambda x: Local().f() + x), python_app(lambda x: kept and x)]
    return kept.apps, kept.fn

counts = []
for _ in range(3):
    for i in range(100):
        apps, fn = make(i)
        futures = [app(1) for app in apps] + [ex.submit(fn, 1), ex.submit(lambda x: x + i, 1), mpitask.map(lambda x: x + i, [1]).futures[0]]
        for future in futures: future.result(30)
    del apps, fn, futures, future
    gc.collect()
    deadline = time.monotonic() + 60
    while engine.stats()["objects"] > 20 and time.monotonic() < deadline: time.sleep(0.01)
    counts.append(engine.stats()["objects"])
    assert len(engine._functions) < 20, len(engine._functions)
assert max(counts) <= 20, counts
print("ok")
""",
        options=["--workers", "2"],
    )
    assert (result.rc, result.out) == (0, "ok\n"), result.err
