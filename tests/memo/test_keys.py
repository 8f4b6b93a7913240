"""What makes two calls the same."""

from __future__ import annotations

import functools
import gc
import hashlib
import pathlib
import threading
import timeit
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpitask.memo import make_key


def f(x: Any, y: Any = 2, *, z: Any = 3) -> None: ...
def rest(x: Any, *args: Any, **kwargs: Any) -> None: ...
def only(x: Any, /, y: Any = 0, **kwargs: Any) -> None: ...
def out(x: Any, outputs: Any = (), stdout: Any = None) -> None: ...


def key(fn: Any, *args: Any, ignore: Any = (), **kwargs: Any) -> str:
    return make_key(fn, args, kwargs, ignore)


def test_the_key_is_hexadecimal() -> None:
    assert len(key(f, 1)) == 64
    assert int(key(f, 1), 16)


def test_the_ways_of_writing_a_call_are_one_call() -> None:
    ways = [key(f, 1), key(f, 1, 2), key(f, 1, y=2), key(f, y=2, x=1), key(f, 1, 2, z=3), key(f, z=3, y=2, x=1)]
    assert len(set(ways)) == 1
    others = [key(f, 2), key(f, 1, 3), key(f, 1, 2, z=4), key(f, 2, 1), key(f, True), key(f, 1.0), key(rest, 1)]
    assert len({*ways, *others}) == 1 + len(others)


def test_kinds_of_parameters() -> None:
    calls = [
        key(rest, 1),
        key(rest, 1, 2),
        key(rest, 1, (2,)),
        key(rest, 1, 2, a=3),
        key(rest, 1, a=3, b=4),
        key(rest, 1, a=4, b=3),
        key(only, 1, x=2),
        key(only, 1, 2),
        key(only, 2, x=1),
        key(only, 1),
    ]
    assert len(set(calls)) == len(calls)
    assert key(rest, 1, b=4, a=3) == calls[4]
    assert key(only, 1, y=2) == calls[7]


def test_calls_that_do_not_fit_have_keys_of_what_was_written() -> None:
    calls = [key(f), key(f, 1, 2, 3), key(f, 1, x=1), key(f, 1, q=1), key(f, 1, q=2), key(only, x=1)]
    assert len(set(calls)) == len(calls)
    assert key(f, 1, 2, 3) == key(f, 1, 2, 3)


@pytest.mark.parametrize("ignore", ["y", ["y"], ("y",), {"y"}, iter(["y"]), ["y", "missing"]])
def test_ignored_arguments_do_not_count_however_they_are_given(ignore: Any) -> None:
    names = frozenset(ignore)
    calls = {key(f, 1, ignore=names), key(f, 1, 7, ignore=names), key(f, 1, y=8, ignore=names)}
    assert len(calls) == 1
    assert key(f, 2, ignore=names) not in calls
    assert key(f, 1, z=4, ignore=names) not in calls


def test_ignored_ones_of_every_kind() -> None:
    assert key(f, 1, ignore=None) == key(f, 1)
    assert key(rest, 1, 2, ignore=["args"]) == key(rest, 1, 3, 4, ignore=["args"])
    assert key(rest, 1, a=1, ignore=["kwargs"]) == key(rest, 1, b=1, ignore=["kwargs"])
    assert key(rest, 1, a=1, b=2, ignore=["a"]) == key(rest, 1, b=2, ignore=["a"])
    assert key(rest, threading.Lock(), ignore=["x"]) == key(rest, 1, ignore=["x"])
    assert key(f, 1, 2, 3, q=1, ignore=["q"]) == key(f, 1, 2, 3, q=2, ignore=["q"])


def test_functions_without_a_signature() -> None:
    with_none = min  # the signature of min cannot be read
    assert key(with_none, 1, 2) == key(with_none, 1, 2) != key(with_none, 2, 1)
    assert key(with_none, 1, default=2, ignore=["default"]) == key(with_none, 1, default=3, ignore=["default"])
    assert key(with_none, 1) != key(max, 1)


def test_callables() -> None:
    class Scale:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __call__(self, x: int, y: int = 1) -> int:
            return x * self.factor

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Scale)

        def __hash__(self) -> int:
            return 1

    assert key(Scale(1), 5) == key(Scale(1), 5, 1) == key(Scale(1), x=5)
    assert len({key(Scale(1), 5), key(Scale(2), 5), key(Scale(1).__call__, 5), key(Scale, 5)}) == 4
    assert key(functools.partial(f, 1), 2) == key(functools.partial(f, 1), y=2) != key(functools.partial(f, 2), 2)


def test_by_name_the_source_does_not_count() -> None:
    def make(body: str) -> Any:
        namespace: dict[str, Any] = {"__name__": "somewhere"}
        exec(f"def f(x): return {body}", namespace)
        return namespace["f"]

    assert make_key(make("x"), (1,), {}, by_name=True) == make_key(make("x + 1"), (1,), {}, by_name=True)
    assert make_key(make("x"), (1,), {}) != make_key(make("x + 1"), (1,), {})
    assert make_key(make("x"), (1,), {}) == make_key(make("x"), (1,), {})


def test_how_a_wrapped_function_is_called_may_mean_something() -> None:
    def wrapped(x: int, y: int = 3) -> int:
        return x + y

    @functools.wraps(wrapped)
    def sets(*args: Any, **kwargs: Any) -> int:
        kwargs.setdefault("y", 5)
        return wrapped(*args, **kwargs)

    @functools.wraps(wrapped)
    def other(x: int, y: int = 7) -> int:
        return wrapped(x, y)

    assert len({key(sets, 1), key(sets, 1, y=3), key(sets, 1, 3)}) == 3
    assert key(sets, 1, y=4, ignore=["y"]) == key(sets, 1, ignore=["y"])
    assert key(other, 1) == key(other, 1, 7) != key(other, 1, 3)


def test_a_function_that_is_changed_is_read_again() -> None:
    def changing(x: int, y: int = 1) -> None: ...

    before = key(changing, 1)
    assert before == key(changing, 1, 1)
    changing.__defaults__ = (2,)
    assert key(changing, 1) == key(changing, 1, 2) != before
    changing.__code__ = (lambda a, b: None).__code__
    assert key(changing, a=1, b=2) == key(changing, 1)


def test_functions_are_not_kept_alive() -> None:
    def closure() -> None: ...

    key(closure)
    watched = weakref.ref(closure)
    del closure
    gc.collect()
    assert watched() is None


class File:
    def __init__(self, path: pathlib.Path) -> None:
        self.url = str(path)

    def __fspath__(self) -> str:
        return self.url


def test_output_is_where_it_goes_and_not_what_is_there(tmp_path: pathlib.Path) -> None:
    file = File(tmp_path / "out")

    def keys() -> list[str]:
        return [
            key(out, 1, outputs=[file]),
            key(out, 1, [file]),
            key(out, 1, stdout=file),
            key(rest, 1, outputs=[file]),
            make_key(f, (1,), {}, outputs=[file]),
            key(out, file),  # this one is input
        ]

    before = keys()
    (tmp_path / "out").write_bytes(b"x")
    after = keys()
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, True, True, True, True, False]
    assert before[0] == before[1]
    assert make_key(f, (1,), {}, outputs=[File(tmp_path / "other")]) not in before
    assert make_key(f, (1,), {}) == key(f, 1)


def test_arguments_that_cannot_be_identified() -> None:
    with pytest.raises(ValueError, match=r"type _thread\.lock .*id_for_memo\.register.*or ignore its argument"):
        key(f, threading.Lock())
    assert key(f, 1, threading.Lock(), ignore=["y"])


arguments = st.lists(st.integers(0, 3), max_size=5)
keywords = st.dictionaries(st.sampled_from(["x", "y", "z", "w"]), st.integers(0, 3), max_size=3)


@given(arguments, keywords, arguments, keywords)
def test_keys_are_equal_if_python_binds_alike(
    a: list[int], ka: dict[str, int], b: list[int], kb: dict[str, int]
) -> None:
    def probe(x: Any, y: Any = 1, /, *args: Any, z: Any = 2, **kwargs: Any) -> Any:
        return (x, y, args, z, sorted(kwargs.items()))

    try:
        bound = probe(*a, **ka) == probe(*b, **kb)
    except TypeError:
        bound = (a, ka) == (b, kb)
        if a and b:
            return  # bound partially: a call that fails anyway
    assert (make_key(probe, a, ka) == make_key(probe, b, kb)) >= bound
    if a and b:
        assert (make_key(probe, a, ka) == make_key(probe, b, kb)) == bound


def test_speed(capsys: pytest.CaptureFixture[str]) -> None:
    data = b"x" * 100

    def best_us(call: Any) -> float:
        return min(timeit.repeat(call, number=1000, repeat=10)) * 1e3

    hash_us = best_us(lambda: hashlib.sha256(data).hexdigest())
    key_us = best_us(lambda: make_key(f, (1, 2.5), {"z": "abc"}))
    with capsys.disabled():
        print(f"\n  a key of three scalars: {key_us:.1f} µs, {key_us / hash_us:.0f} times what hashing 100 bytes takes")
