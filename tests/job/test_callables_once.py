# ruff: noqa: E501
"""Partials, bound methods and callable objects of the script: their state is that of the call; classes go once."""

from __future__ import annotations

from helpers.processes import Launcher


def test_state_is_that_of_the_call(launcher: Launcher) -> None:
    result = launcher.run(
        """
import functools, mpitask
N = 1
class C:
    k = 10
    def __init__(self): self.n = 0
    def m(self, x, *, more=0): return self.n, self.k, N, x, more
    def __call__(self, x): return self.m(x)
    @classmethod
    def cl(cls, x): return cls.k, x
def f(*args, **kwargs): return args, kwargs
ex = mpitask.Executor()
c, values = C(), []
p = functools.partial(functools.partial(f, 1, values, a=1), 2, b=2)
want = []
got = []
for i in range(3):
    c.n = i
    values.append(i)
    got += [ex.submit(c.m, 5, more=1), ex.submit(c, 6), ex.submit(p, 3, b=3)]
    want += [(i, 10, 1, 5, 1), (i, 10, 1, 6, 0), ((1, list(values), 2, 3), {"a": 1, "b": 3})]
C.k = 11
got += [ex.submit(c, 7), ex.submit(C.cl, 8), ex.submit(c.m, 9)]
want += [(2, 11, 1, 7, 0), (11, 8), (2, 11, 1, 9, 0)]
assert [future.result(30) for future in got] == want, [future.result() for future in got]
N = 2
assert ex.submit(c, 7).result(30) == (2, 11, 2, 7, 0)
C.m = lambda self, x: "other"
assert ex.submit(c, 7).result(30) == "other"
def back(x): return [x, C()]
a, b = ex.submit(back, c).result(30)
assert type(a) is C and type(b) is C and a.n == 2 and C.k == 11
old, C = C, type("C", (C,), {"k": 12})
assert ex.submit(C(), 1).result(30) == "other" and ex.submit(old.cl, 1).result(30) == (11, 1) and ex.submit(C.cl, 1).result(30) == (12, 1)
print("ok")
""",
        options=["--workers", "2"],
    )
    assert (result.rc, result.out) == (0, "ok\n"), result.err


def test_calls_made_before_a_class_was_changed_see_it_as_it_was(launcher: Launcher) -> None:
    """Also where a later call has run before them in the same worker."""
    result = launcher.run(
        """
import os, time
from mpitask import python_app
class C:
    k = 1
@python_app
def gate():
    while not os.path.exists("gate"): time.sleep(0.01)
@python_app
def read(c): return c.k, time.monotonic()
assert read(C()).result(60)[0] == 1  # the worker has this state of it
held = gate()
old = read(C(), priority=0)
C.k = 2
new = read(C(), priority=10)
open("gate", "w").close()
(old_k, old_at), (new_k, new_at) = old.result(60), new.result(60)
os.remove("gate")
assert new_at < old_at, "the test wants the later one to run first"
print(old_k, new_k)
""",
        options=["--workers", "1"],
    )
    assert (result.rc, result.out) == (0, "1 2\n"), result.err
