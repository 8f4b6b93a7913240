"""What makes two values the same: plain ones, numpy's, entangled ones."""

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

from mpitask.memo import id_for_memo
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
