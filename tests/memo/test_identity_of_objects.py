"""What makes two files, functions or objects of users' own types the same; in every process."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import subprocess
import sys
import threading
from typing import Any

import pytest

from mpitask.memo import Identity, id_for_memo
from mpitask.memo.functions import name_id
from mpitask.memo.identity import names_only

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


def test_by_name_a_function_is_its_name() -> None:
    one, edited = make("def f(x): return x"), make("def f(x): return x + 1")
    with names_only():
        assert name_id(one) == name_id(edited) == id_for_memo(one) == id_for_memo(edited)
    assert name_id(module_function) != name_id(other_function)
    assert name_id(adder(1)) == name_id(adder(2))
    assert id_for_memo(one) != id_for_memo(edited)


def test_a_function_is_its_code() -> None:
    bodies = ["x", "x + 1", "x + 1.0", "x + True", "abs(x)", "len(x)", "(lambda: x)", "(lambda: 1)", "[x]", "{x}"]
    ids = [Identity(make(f"def f(x): return {body}")).now() for body in bodies]
    assert len(set(ids)) == len(ids)
    moved = make("\n\n\ndef f(x):\n    # a comment\n    return (x)")
    assert Identity(moved).now() == ids[0]
    assert Identity(adder(1)).now() != Identity(adder(2)).now()
    assert Identity(adder([1])).now() == Identity(adder([1])).now()


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
    for rule in (contextlib.nullcontext, names_only):
        with rule():
            ids = [id_for_memo(function) for function in functions]
            assert len(set(ids)) == len(ids)
            assert [id_for_memo(adder(1)), id_for_memo(adder([1]))] == [ids[5], ids[7]]
    assert name_id(functions[0]) != name_id(functions[1])


def test_callables_without_a_name_are_what_they_hold() -> None:
    class Scale:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __call__(self, x: int) -> int:
            return x * self.factor

    callables = [Scale(1), Scale(2), Scale(1).__call__, Scale(2).__call__, functools.partial(max, 1), [1].append]
    for identify in (name_id, lambda fn: Identity(fn).now()):
        ids = [identify(fn) for fn in callables]
        assert len(set(ids)) == len(ids)
        assert identify(Scale(1)) == ids[0]
    assert name_id(functools.lru_cache(module_function)) == name_id(module_function)


def test_an_empty_cell_is_no_error() -> None:
    def outer() -> Any:
        def inner() -> Any:
            return later

        result = Identity(inner).now()
        later = 1
        return result, Identity(inner).now()

    before, after = outer()
    assert before != after


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


# -- users' own types --


# singledispatch has no way back: what is registered here is for classes of the test's own.


def test_users_register_types() -> None:
    class Mesh:
        def __init__(self, name: str) -> None:
            self.name = name
            self.lock = threading.Lock()

    class FineMesh(Mesh):
        pass

    with pytest.raises(
        ValueError, match=r"type test_identity_of_objects\..*\.Mesh .*\.lock.*@id_for_memo\.register\(.*Mesh\)"
    ):
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


# -- stable between processes --

STABLE = """
import collections, dataclasses, datetime, decimal, enum, functools, hashlib, pathlib, sys, zoneinfo
import numpy as np
from mpitask.memo import Identity, id_for_memo, make_key

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
print(Identity(named).now().hex())
print(make_key(named, (words,), {}), make_key(named, (), {"x": Own()}))
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
