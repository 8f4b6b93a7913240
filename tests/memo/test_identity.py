"""What makes two values the same."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import threading
import types
import uuid
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpitask.memo import function_id, id_for_memo
from mpitask.memo.identity import item

# -- values, and what their equality is --


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Flags(enum.Flag):
    A = 1
    B = 2


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any


class Plain:
    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


def same(a: Any, b: Any) -> bool:
    """Whether types and contents are equal at every depth."""
    if type(a) is not type(b):
        return False
    if isinstance(a, enum.Enum):
        return a is b
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(any(same(k, j) and same(v, w) for j, w in b.items()) for k, v in a.items())
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, Point | Plain):
        return same(vars(a), vars(b))
    return bool(a == b)


def rebuilt(value: Any, rng: random.Random) -> Any:
    """The same value of other objects, dicts and sets filled in another order."""
    if isinstance(value, enum.Enum):
        return value
    if type(value) is str:
        return "".join(list(value))
    if type(value) is Pair:
        return Pair(*(rebuilt(part, rng) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(rebuilt(part, rng) for part in value)
    if isinstance(value, dict | set | frozenset):
        parts = [rebuilt(part, rng) for part in (list(value.items()) if isinstance(value, dict) else value)]
        rng.shuffle(parts)
        return type(value)(parts)
    if isinstance(value, Point):
        return Point(rebuilt(value.x, rng), rebuilt(value.y, rng))
    if isinstance(value, Plain):
        return Plain(**rebuilt(vars(value), rng))
    return copy.copy(value)


# Few values that are easily taken for each other, so that equal ones and near misses are found.
confusable = st.sampled_from(
    [
        *(None, False, True, 0, 1, -1, 0.0, -0.0, 1.0, float("nan"), 0j, 1 + 0j, "", "0", "1", "a", b"", b"0", b"a"),
        *(1 << 64, 1 << 256, -(1 << 256), "i1;", "1:a", b"i1;", "\ud800", "é", "é"),
        *(Colour.RED, Colour.BLUE, Level.LOW, Flags.A, Flags.A | Flags.B),
        *(pathlib.PurePosixPath("a"), pathlib.PosixPath("a"), pathlib.PureWindowsPath("a")),
        *(datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), datetime.time(1), datetime.timedelta(1)),
        *(datetime.datetime(2020, 1, 1, fold=1), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
        *(decimal.Decimal("1"), decimal.Decimal("1.0"), fractions.Fraction(1), range(2), range(0, 3, 2)),
        *(int, float, len, os.path.join, Point, Ellipsis),
    ]
)
scalars = (
    confusable
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.integers(250, 260).map(lambda size: "x" * size)
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(inner, max_size=3)
    hashable = st.lists(confusable, max_size=3)
    return st.one_of(
        few,
        few.map(tuple),
        few.map(lambda v: [tuple(v)]),
        hashable.map(set),
        hashable.map(frozenset),
        st.dictionaries(confusable, inner, max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Point, inner, inner),
        st.builds(lambda a, b: Plain(a=a, b=b), inner, inner),
    )


values = st.recursive(scalars, containers, max_leaves=8)
confusable_values = st.recursive(confusable, containers, max_leaves=4)


@given(values, st.randoms())
def test_equal_values_have_equal_ids(value: Any, rng: random.Random) -> None:
    assert id_for_memo(rebuilt(value, rng)) == id_for_memo(value)


@given(confusable_values, confusable_values)
def test_ids_are_equal_only_if_values_are(a: Any, b: Any) -> None:
    assert (id_for_memo(a) == id_for_memo(b)) == same(a, b)


@given(values, values)
def test_no_encoding_begins_with_another(a: Any, b: Any) -> None:
    one, other = item(a), item(b)
    assert one == other or not (one.startswith(other) or other.startswith(one))


DISTINCT: list[Any] = [
    [1, 2],
    (1, 2),
    Pair(1, 2),
    {1, 2},
    frozenset({1, 2}),
    {1: 2},
    collections.OrderedDict({1: 2, 3: 4}),
    collections.OrderedDict({3: 4, 1: 2}),
    collections.Counter({1: 2}),
    collections.defaultdict(int, {1: 2}),
    collections.defaultdict(list, {1: 2}),
    collections.deque([1, 2]),
    collections.deque([1, 2], maxlen=5),
    bytearray(b"a"),
    b"a",
    "a",
    Level.LOW,
    1,
    True,
    1.0,
    [[]],
    [[], []],
    ["ab", "c"],
    ["a", "bc"],
    ["abc"],
    "x" * 1000,
    b"x" * 1000,
    bytearray(b"x" * 1000),
    "x" * 1001,
    Point(1, 2),
    Plain(x=1, y=2),
    uuid.UUID(int=1),
    re.compile("a"),
    re.compile("a", re.IGNORECASE),
    functools.partial(max, 1),
    functools.partial(max, 1, key=abs),
    functools.partial(min, 1),
    types.SimpleNamespace(x=1),
    slice(1, 2),
    ValueError("a"),
    KeyError("a"),
    str.upper,
    "a".upper,
    "b".upper,
    Point(1, 2).__eq__,
    datetime.timezone(datetime.timedelta(hours=1)),
    datetime.timezone(datetime.timedelta(hours=1), "X"),
    list[int],
    list[str],
    os,
    sys,
]


def test_distinct_values() -> None:
    ids = [id_for_memo(value) for value in DISTINCT]
    assert len(set(ids)) == len(ids)
    assert [id_for_memo(value) for value in copy.deepcopy(DISTINCT[:-4])] == ids[:-4]


def test_large_numbers() -> None:
    ids = [id_for_memo(sign * (1 << 16607) + add) for sign in (1, -1) for add in (0, 1)]  # 5000 digits
    assert len(set(ids)) == 4
    assert id_for_memo(1 << 16607) == ids[0]


# -- numpy --

ARRAYS = [
    np.arange(6),
    np.arange(6, dtype="i4"),
    np.arange(6, dtype=">i8"),
    np.arange(6).reshape(2, 3),
    np.arange(6).reshape(3, 2),
    np.arange(6.0),
    np.array(1),
    np.array([1]),
    np.array([], dtype="f4"),
    np.array([], dtype="f8"),
    np.zeros((0, 3)),
    np.array(["a", "b"]),
    np.array(["a", "b"], dtype="U5"),
    np.array([b"a", b"b"]),
    np.array(["2020-01-01"], dtype="M8[D]"),
    np.array(["2020-01-01"], dtype="M8[s]"),
    np.array([1, "a", None], dtype=object),
    np.array([1, "a", [2]], dtype=object),
    np.array([1.5], dtype=np.longdouble),
    np.array([(1, 2.0)], dtype=[("a", "i1"), ("b", "f8")]),
    np.array([(1, 2.0)], dtype=[("a", "i1"), ("c", "f8")]),
    np.ma.masked_array([1, 2], mask=[0, 1]),
    np.ma.masked_array([1, 2], mask=[1, 0]),
    np.int64(1),
    np.int32(1),
    np.float64(1),
    np.float32(1),
    np.longdouble(1),
    np.bool_(True),
    np.str_("a"),
    np.bytes_(b"a"),
    np.datetime64("2020-01-01"),
    np.dtype("f8"),
    np.sin,
    np.cos,
    1,
    1.0,
    True,
    "a",
    [0, 1, 2, 3, 4, 5],
]


def test_numpy_values_are_their_type_shape_and_content() -> None:
    ids = [id_for_memo(value) for value in ARRAYS]
    assert len(set(ids)) == len(ids)
    assert [id_for_memo(value) for value in copy.deepcopy(ARRAYS)] == ids


def test_the_layout_of_an_array_is_not_content() -> None:
    array = np.arange(12).reshape(3, 4)
    for other in (np.asfortranarray(array), np.arange(24)[::2].reshape(3, 4) // 2, array[::-1][::-1]):
        assert id_for_memo(other) == id_for_memo(array)
    assert id_for_memo(array.T) != id_for_memo(array)


def test_padding_is_not_content() -> None:
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    ids = set()
    for fill in (b"\0", b"\xff"):
        array = np.frombuffer(bytearray(fill * dtype.itemsize * 2), dtype)
        array["a"], array["b"] = 1, 2
        ids |= {id_for_memo(array), id_for_memo(array[0])}
    assert len(ids) == 2  # the array and the scalar


def test_numpy_is_not_imported() -> None:
    code = "import sys, mpitask.memo as m; m.id_for_memo([object, 1, m.make_key]); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


# -- stable between processes --

STABLE = """
import collections, dataclasses, datetime, decimal, enum, functools, hashlib, pathlib, sys, zoneinfo
import numpy as np
from mpitask.memo import function_id, id_for_memo, make_key

class Own:
    def __init__(self, *parts):
        self.parts = parts
        self.words = {"one", "two", "three", *map(str, range(20))}
        self.me = self

class OwnSet(set):
    pass

class Slotted:
    __slots__ = ("a", "b")

@dataclasses.dataclass
class Data:
    own: object

class Choice(enum.Enum):
    A = "a"

def named(x, y={"p", "q", "r"}):
    return x in {"a", "b", "c", "d"}

slotted = Slotted()
slotted.a, slotted.b = 1, {"x", "y", "z"}
words = {"alpha", "beta", "gamma", "delta", 1, 2.5, None, b"x", ("t", 1)}
values = [words, frozenset(words), dict.fromkeys(words), Own(words, 1), OwnSet(words), slotted, Data(Own()), Choice.A,
    named, lambda x, words=words: x in {"a", "b", "c", "d"}, functools.partial(named, words, y=Own()), Own, len,
    [].append, Own().__init__, np.arange(5), np.array([words], dtype=object), np.float32(2), decimal.Decimal("1.10"),
    pathlib.Path("a/b"), datetime.datetime.now, datetime.datetime(2020, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
    collections.defaultdict(list, {w: [w] for w in words}), collections.deque(map(str, [1, 2])), sys]
for value in values:
    print(hashlib.sha256(id_for_memo(value)).hexdigest())
print(function_id(named, source=True).hex())
print(make_key(named, (words,), {}), make_key(named, (), {"x": Own()}, source=True))
"""


def test_ids_are_the_same_in_every_process() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STABLE], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0].count("\n") == 27
    assert outputs[0] == outputs[1]


# -- objects that hold themselves, and large ones --


def test_values_that_hold_themselves() -> None:
    def circle(number: int) -> list[Any]:
        ring: list[Any] = [number, {}]
        ring[1]["back"] = ring
        return ring

    assert id_for_memo(circle(1)) == id_for_memo(circle(1)) != id_for_memo(circle(2))
    tree = Plain(children=[Plain(), Plain()])
    for child in tree.children:
        child.parent = tree
    assert id_for_memo(tree) == id_for_memo(copy.deepcopy(tree))
    assert id_for_memo([tree]) == id_for_memo([copy.deepcopy(tree)])


def test_deep_and_entangled_values_end() -> None:
    deep: Any = None
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match=r"type builtins\.list"):
        id_for_memo(deep)
    chain: Any = None
    for _ in range(200):
        chain = Plain(next=chain)
    assert id_for_memo(chain) == id_for_memo(copy.deepcopy(chain))


def test_a_value_with_too_many_paths_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpitask.memo.identity._STEPS_MAX", 1000)
    nodes = [Plain(number=i) for i in range(10)]
    for node in nodes:
        node.others = nodes
    first = id_for_memo(nodes)
    assert first == id_for_memo(nodes)
    nodes[3].number = 33
    assert id_for_memo(nodes) != first
    assert id_for_memo([1]) == id_for_memo([1])  # and the count begins again


# -- files --


class File:
    """As the File of a workflow: a name, not a content."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __fspath__(self) -> str:
        return self.url.removeprefix("file://")


def test_a_file_is_its_url_and_when_it_was_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data"
    file, by_url = File(str(path)), File(f"file://{path}")
    missing = id_for_memo(file)
    assert missing == id_for_memo(file, output_ref=True)
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    written = id_for_memo(file)
    assert written != missing
    assert id_for_memo(by_url) != id_for_memo(by_url, output_ref=True)
    os.utime(path, ns=(1, 2))
    touched = id_for_memo(file)
    path.write_bytes(b"three")
    os.utime(path, ns=(1, 2))
    assert len({missing, written, touched, id_for_memo(file)}) == 4
    assert id_for_memo(file, output_ref=True) == missing
    assert id_for_memo([file], output_ref=True) == id_for_memo([File(str(path))], output_ref=True)
    assert id_for_memo([file], output_ref=True) != id_for_memo([file])


def test_a_file_elsewhere_is_its_url(tmp_path: pathlib.Path) -> None:
    class Remote(File):
        def __fspath__(self) -> str:
            raise ValueError("not here")

    assert id_for_memo(Remote("http://x/a")) == id_for_memo(Remote("http://x/a")) != id_for_memo(Remote("http://x/b"))
    assert id_for_memo(Remote("file:///a")) == id_for_memo(Remote("file:///a"))
    assert id_for_memo(Remote("http://[")) == id_for_memo(Remote("http://["))


# -- functions --


def module_function(x: int) -> int:
    return x


def other_function(x: int) -> int:
    return x


def adder(n: Any) -> Any:
    def add(x: Any) -> Any:
        return x + n

    return add


def make(source: str) -> Any:
    namespace: dict[str, Any] = {"__name__": "somewhere"}
    exec(source, namespace)
    return namespace["f"]


def test_a_function_is_its_name() -> None:
    one, edited = make("def f(x): return x"), make("def f(x): return x + 1")
    assert function_id(one) == function_id(edited) == id_for_memo(one) == id_for_memo(edited)
    assert function_id(module_function) != function_id(other_function)
    assert function_id(adder(1)) == function_id(adder(2))  # two of one factory are one function, unless source counts


def test_with_source_a_function_is_its_code() -> None:
    bodies = ["x", "x + 1", "x + 1.0", "x + True", "abs(x)", "len(x)", "(lambda: x)", "(lambda: 1)", "[x]", "{x}"]
    ids = [function_id(make(f"def f(x): return {body}"), source=True) for body in bodies]
    assert len(set(ids)) == len(ids)
    moved = make("\n\n\ndef f(x):\n    # a comment\n    return (x)")
    assert function_id(moved, source=True) == ids[0]
    assert function_id(adder(1), source=True) != function_id(adder(2), source=True)
    assert function_id(adder([1]), source=True) == function_id(adder([1]), source=True)


def test_nameless_functions_as_arguments_are_their_code_and_what_they_hold() -> None:
    def recursive(x: int) -> int:
        return recursive(x)

    functions = [
        lambda x: x,
        lambda x: x + 1,
        lambda x, n=1: x + n,
        lambda x, n=2: x + n,
        lambda x, *, n=2: x + n,
        adder(1),
        adder(2),
        adder([1]),
        recursive,
    ]
    ids = [id_for_memo(function) for function in functions]
    assert len(set(ids)) == len(ids)
    assert [id_for_memo(adder(1)), id_for_memo(adder([1]))] == [ids[5], ids[7]]
    assert function_id(functions[0]) != function_id(functions[1])


def test_callables_without_a_name_are_what_they_hold() -> None:
    class Scale:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __call__(self, x: int) -> int:
            return x * self.factor

    callables = [Scale(1), Scale(2), Scale(1).__call__, Scale(2).__call__, functools.partial(max, 1), [1].append]
    ids = [function_id(fn) for fn in callables]
    assert len(set(ids)) == len(ids)
    assert function_id(Scale(1)) == ids[0]
    assert function_id(functools.lru_cache(module_function)) == function_id(module_function)


def test_an_empty_cell_is_no_error() -> None:
    def outer() -> Any:
        def inner() -> Any:
            return later

        result = function_id(inner, source=True)
        later = 1
        return result, function_id(inner, source=True)

    before, after = outer()
    assert before != after


# -- users' own types --


# singledispatch has no way back: what is registered here is for classes of the test's own.


def test_users_register_types() -> None:
    class Mesh:
        def __init__(self, name: str) -> None:
            self.name = name
            self.lock = threading.Lock()

    class FineMesh(Mesh):
        pass

    with pytest.raises(ValueError, match=r"type test_identity\..*\.Mesh .*\.lock.*@id_for_memo\.register\(.*Mesh\)"):
        id_for_memo([Mesh("a")])

    @id_for_memo.register(Mesh)
    def mesh_id(mesh: Mesh, output_ref: bool = False) -> bytes:
        return mesh.name.encode() + (b"out" if output_ref else b"")

    assert id_for_memo(Mesh("a")) == b"a"
    assert id_for_memo({"m": Mesh("a")}) == id_for_memo({"m": Mesh("a")}) != id_for_memo({"m": Mesh("b")})
    assert id_for_memo([Mesh("a")]) != id_for_memo([FineMesh("a")])
    assert id_for_memo([Mesh("a"), Mesh("b")]) != id_for_memo([Mesh("ab"), Mesh("")])
    assert id_for_memo([Mesh("a")], output_ref=True) != id_for_memo([Mesh("a")])


def test_users_replace_how_a_builtin_type_is_treated() -> None:
    code = """
from mpitask.memo import id_for_memo, make_key
@id_for_memo.register(float)
def rounded(x, output_ref=False):
    return str(round(x, 3)).encode()
print(id_for_memo([0.1 + 0.2]) == id_for_memo([0.3]), make_key(max, (0.3,), {}) == make_key(max, (0.3000001,), {}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["True", "True"]


def test_wrong_registrations() -> None:
    class Text:
        pass

    class Failing:
        pass

    @id_for_memo.register(Text)
    def text_id(obj: Text, output_ref: bool = False) -> Any:
        return "text"

    @id_for_memo.register(Failing)
    def failing_id(obj: Failing, output_ref: bool = False) -> bytes:
        raise KeyError("deliberate")

    with pytest.raises(ValueError, match=r"registered for .*Text gave str, not bytes"):
        id_for_memo([Text()])
    with pytest.raises(KeyError, match="deliberate"):
        id_for_memo([Failing()])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (threading.Lock(), "_thread.lock"),
        ([{"a": (i for i in ())}], "builtins.generator"),
        (functools.partial(max, threading.Lock()), "functools.partial"),
        (Plain(inner=Plain(lock=threading.Lock())), "test_identity.Plain"),
    ],
)
def test_what_cannot_be_pickled_is_named(value: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"a value of type {re.escape(name)} cannot .*: TypeError: cannot pickle"):
        id_for_memo(value)
