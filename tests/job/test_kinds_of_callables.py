# ruff: noqa: E501
"""Functions and classes of the script, of many kinds: as callee, as argument, and in what comes back."""

from __future__ import annotations

import pytest

from helpers.processes import Launcher

CLASSES = """
import abc, collections, contextlib, dataclasses, enum, functools, operator, typing
from mpitask import python_app

class Old:
    __slots__ = ("k", "unset", "__weakref__")
    def __init__(self, k): self.k = k

class One:
    __slots__ = "k"
    def __init__(self, k): self.k = k

class Private:
    __slots__ = ("__k",)
    def __init__(self, k): self.__k = k
    @property
    def k(self): return self.__k

class Under(Old):
    __slots__ = ("more",)

class WithDict(Old):
    def __init__(self, k): super().__init__(k); self.free = k

@dataclasses.dataclass(slots=True)
class P:
    k: int
    tags: list = dataclasses.field(default_factory=list)

@dataclasses.dataclass(slots=True, frozen=True)
class Q:
    k: int

@dataclasses.dataclass(slots=True)
class Child(P):
    y: int = 0

@dataclasses.dataclass(frozen=True, order=True)
class D:
    k: int
    when: typing.ClassVar[int] = 3

class N(typing.NamedTuple):
    k: int
    def twice(self): return self.k * 2

M = collections.namedtuple("M", "k")
T = typing.TypeVar("T")

class G(typing.Generic[T]):
    def __init__(self, k: T): self.k = k

class Proto(typing.Protocol):
    k: int

class Base(abc.ABC):
    @abc.abstractmethod
    def hi(self): ...

class Sub(Base):
    def __init__(self, k): self.k = k
    def hi(self): return "hi"

class Meta(type):
    def __new__(mcs, name, bases, space, **more): return super().__new__(mcs, name, bases, space)

class WithMeta(metaclass=Meta):
    def __init__(self, k): self.k = k

class Lazy:
    def __init__(self, k): self._k = k
    @functools.cached_property
    def k(self): return self._k

class Outer:
    class Inner:
        def __init__(self, k): self.k = k

class Color(enum.Enum):
    RED = 5
    def hi(self): return self.name
    @property
    def k(self): return self.value

class Perm(enum.IntFlag):
    A = 1
    B = 4
    @property
    def k(self): return 5

class Left:
    def __init__(self, k): self.k = k
    def other(self): return Right(self.k)
class Right:
    def __init__(self, k): self.k = k
    def other(self): return Left(self.k)

class Oops(Exception):
    def __init__(self, k): super().__init__(k); self.k = k

MADE = [Old(5), One(5), Private(5), Under(5), WithDict(5), P(5), Q(5), Child(5), D(5), N(5), M(5), G(5), Sub(5), WithMeta(5), Lazy(5),
        Outer.Inner(5), Color.RED, Perm.A | Perm.B, Left(5), Right(5), Oops(5)]
"""


def test_classes_there_and_back(launcher: Launcher) -> None:
    """Instances as argument, result and in a chain; a result is of the script's own class, which stays as it is."""
    result = launcher.run(
        CLASSES
        + """
@python_app
def make(cls, *args): return cls(*args)
@python_app
def get(obj): return obj.k
@python_app
def same(obj): return {"it": [obj]}
@python_app
def is_sub(obj): return isinstance(obj, Sub), issubclass(Sub, Base), isinstance(Left(1).other().other(), Left)

bad = []
before = {type(obj): dict(vars(type(obj))) for obj in MADE}
for obj in MADE:
    cls = type(obj)
    calls = {"argument": get(obj), "chain": get(same(obj)["it"][0])}
    if not issubclass(cls, (Color, Perm)):
        calls["made"] = make(cls, 5).k
    for what, call in calls.items():
        try:
            if call.result(30) != 5: bad.append((cls, what, call.result()))
        except BaseException as error:
            bad.append((cls, what, repr(error)))
    try:
        back = same(obj).result(30)["it"][0]
        if type(back) is not cls or back.k != 5: bad.append((cls, "result", type(back)))
    except BaseException as error:
        bad.append((cls, "result", repr(error)))
assert is_sub(Sub(1)).result(30) == (True, True, True)
assert same(Color.RED).result(30)["it"][0] is Color.RED
for cls, were in before.items():
    now = dict(vars(cls))
    changed = [name for name in were if were[name] is not now.get(name) and name not in ("_abc_impl", "__doc__")]
    if changed: bad.append((cls, "changed", changed))
print("FAIL" if bad else "ok", *bad, sep="\\n") if bad else print("ok")
""",
        options=["--workers", "2"],
    )
    assert (result.rc, result.out) == (0, "ok\n"), result.err


def test_functions_of_all_kinds(launcher: Launcher) -> None:
    result = launcher.run(
        CLASSES
        + """
@functools.lru_cache(maxsize=100)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

@functools.cache
def cached(x, *, by=1): return x + by

@functools.singledispatch
def single(x): return "any"
@single.register
def _(x: int): return "int"
@single.register
def _(x: P): return "P"

class Multi:
    @functools.singledispatchmethod
    def show(self, x): return "any"
    @show.register
    def _(self, x: int): return "int"
    def add(self, a, b): return a + b
    add3 = functools.partialmethod(add, 3)
    @functools.lru_cache
    def slow(self, x): return x * 2
    @staticmethod
    def st(x): return x + 1
    @classmethod
    def cl(cls, x): return cls.__name__, x

@contextlib.contextmanager
def ctx(x):
    yield x + 1

def in_ctx(x):
    with ctx(x) as y: return y

def deco(f):
    @functools.wraps(f)
    def inner(*a, **k): return "deco", f(*a, **k)
    return inner
@deco
def decorated(x): return x

def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)

def use_all(x):
    return fib(x), cached(x, by=2), single(x), Multi().show(x), Multi().add3(x), in_ctx(x), even(x), Lazy(x).k

bad = []
for f, args, want in [
    (fib, (30,), 832040), (cached, (1,), 2), (single, (1,), "int"), (single, ("a",), "any"), (single, (P(1),), "P"), (Multi().show, (1,), "int"),
    (Multi().add3, (1,), 4), (Multi().slow, (2,), 4), (Multi.st, (1,), 2), (Multi.cl, (1,), ("Multi", 1)), (in_ctx, (1,), 2), (decorated, (1,), ("deco", 1)),
    (even, (4,), True), (use_all, (6,), (8, 8, "int", "int", 9, 7, True, 6)), (operator.itemgetter(1), ([1, 2],), 2), (functools.partial(even), (4,), True),
    (functools.partial(cached, by=5), (1,), 6), (Color, (5,), Color.RED), (P, (7,), P(7)), (Color.RED.hi, (), "RED"), (Sub(1).hi, (), "hi"),
]:
    import mpitask
    for how in (lambda: python_app(f)(*args).result(30), lambda: ex.submit(f, *args).result(30), lambda: mpitask.map(f, [args[0]]).result(30)[0] if args else want):
        try:
            with mpitask.Executor() as ex:
                got = how()
            if got != want: bad.append((f, got))
        except BaseException as error:
            bad.append((f, repr(error)))
print(*bad, sep="\\n") if bad else print("ok")
""",
        options=["--workers", "1"],
    )
    assert (result.rc, result.out) == (0, "ok\n"), result.err


@pytest.mark.parametrize(
    ("make", "word"),
    [
        ("open(__file__)", "open file"), ("open(__file__, 'rb')", "open file"), ("socket.socket()", "connection"), ("threading.Lock()", "lock"),
        ("threading.RLock()", "lock"), ("(i for i in [1])", "generator"), ("threading.Thread()", "thread"),
    ],
)  # fmt: skip
def test_what_belongs_to_one_process_is_refused(launcher: Launcher, make: str, word: str) -> None:
    result = launcher.run(f"""
import mpitask, socket, threading
thing = {make}
@mpitask.python_app
def use(x): return 1
@mpitask.python_app
def captures(x): return thing
for call, what in ((lambda: use([thing]), "argument 0"), (lambda: captures(1), "captures"), (lambda: use(1).result(), "")):
    try:
        call()
    except mpitask.SerializationError as error:
        assert what and what in str(error) and "cannot pickle a" in str(error) and "{word}" in str(error), error
    else:
        assert not what
print("ok")
if hasattr(thing, "close"): thing.close()
""")
    assert (result.rc, result.out) == (0, "ok\n"), result.err
