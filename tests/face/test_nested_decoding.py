"""User code may submit tasks while a call is decoded, or while its arguments are read: the rest of them stays whole."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import mpitask
from mpitask import load, python_app

LIMIT_S = 60


@pytest.fixture
def two() -> Iterator[None]:
    with load(workers=2):
        yield


@python_app
def some_bytes(n: int) -> bytes:
    return b"x" * n


def submit_and_see_them_end() -> list[Any]:
    """Results come in meanwhile: more than the worker's ring holds."""
    futures = [some_bytes(20_000) for _ in range(40)]
    deadline = time.monotonic() + LIMIT_S
    while not all(future.done() for future in futures):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return futures


class Submits:
    """When it is unpickled."""

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.futures = submit_and_see_them_end()


class Waits(Submits):
    """For a value that does not fit into the ring."""

    def __setstate__(self, state: dict[str, int]) -> None:
        self.futures = submit_and_see_them_end()
        assert len(some_bytes(3_000_000).result(timeout=LIMIT_S)) == 3_000_000


def digest(data: Any) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.mark.parametrize("kind", [Submits, Waits])
@pytest.mark.parametrize("size", [50_000, 2_000_000], ids=["in-the-ring", "streamed"])
def test_arguments_behind_one_that_submits(two: None, kind: type, size: int) -> None:
    @python_app
    def look(arg: tuple[Submits, bytes]) -> str:
        assert {len(future.result()) for future in arg[0].futures} == {20_000}
        return digest(arg[1])

    data = os.urandom(size)
    for _ in range(2):
        assert look((kind(), data)).result(timeout=LIMIT_S) == digest(data)


def test_values_behind_one_that_submits(two: None) -> None:
    @python_app
    def make(data: bytes) -> bytes:
        return data

    @python_app
    def look(submits: Submits, *values: bytes) -> str:
        return digest(b"".join(values))

    parts = [os.urandom(3000) for _ in range(15)]
    assert look(Submits(), *map(make, parts)).result(timeout=LIMIT_S) == digest(b"".join(parts))


def test_what_a_function_captured_that_submits_while_it_is_loaded(two: None) -> None:
    shared, submits = mpitask.share(b"s" * 5000), Submits()

    @python_app
    def look(n: int) -> tuple[int, int]:
        return n, len(shared) + len(submits.futures)

    assert look(7).result(timeout=LIMIT_S) == (7, 5040)


def test_values_that_are_combined_by_a_function_that_submits(two: None) -> None:
    def made(i: int) -> list[bytes]:
        return [i.to_bytes(2, "big") * 50]

    def joined(a: list[bytes], b: list[bytes]) -> list[bytes]:
        if len(a) in (1, 40):
            submit_and_see_them_end()
        return a + b

    got = mpitask.map(made, range(150), chunksize=3).reduce(joined)
    assert got.result(timeout=LIMIT_S) == [i.to_bytes(2, "big") * 50 for i in range(150)]


def test_values_that_are_combined_by_a_function_that_waits_in_an_inline_worker() -> None:
    def joined(a: list[bytes], b: list[bytes]) -> list[bytes]:
        if len(a) == 1:
            assert some_bytes(300_000).result(timeout=LIMIT_S) == b"x" * 300_000
        return a + b

    with load(inline=True):
        got = mpitask.map(lambda i: [i.to_bytes(2, "big") * 50], range(60), chunksize=3).reduce(joined)
        assert got.result(timeout=LIMIT_S) == [i.to_bytes(2, "big") * 50 for i in range(60)]
