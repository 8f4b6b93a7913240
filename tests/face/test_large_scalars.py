"""Plain values that are too large for the fast way: marshal takes less than 2 GiB."""

from __future__ import annotations

import marshal
from types import SimpleNamespace
from typing import Any

import pytest

import mpitask
from mpitask import codec, submission
from mpitask.bulk import calls
from mpitask.worker import runner

LIMIT = 1000


def few(obj: Any, version: int = marshal.version) -> bytes:
    """As `marshal.dumps`, with a lower limit."""
    values = obj if isinstance(obj, tuple | list) else (obj,)
    if any(isinstance(value, str | bytes) and len(value) > LIMIT for value in values):
        raise ValueError("unmarshallable object")
    return marshal.dumps(obj, version)


def twice(value: Any, *, other: Any = None) -> Any:
    return (other or value) * 2


def tagged(*values: Any) -> Any:
    return list(values)


def test_large_text_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    low = SimpleNamespace(dumps=few, loads=marshal.loads)
    for module in (codec, calls, runner):
        monkeypatch.setattr(module, "marshal", low)
    monkeypatch.setattr(submission, "_dumps", few)
    with mpitask.load(inline=True) as engine:
        for value in ("a" * (LIMIT + 1), b"a" * (LIMIT + 1)):
            app = mpitask.python_app(twice)
            first = app(value)
            assert first.result(timeout=60) == value * 2
            assert app(first).result(timeout=60) == value * 4  # as the value of another task
            assert mpitask.python_app(tagged)(first, value).result(timeout=60) == [value * 2, value]
            assert app(0, other=value).result(timeout=60) == value * 2
            assert mpitask.map(twice, [value, value]).result(60) == [value * 2] * 2
            assert mpitask.share(value).result() == value
            promise = engine.promise()
            promise.set_result(value)
            assert app(promise).result(timeout=60) == value * 2


@pytest.mark.long
def test_two_gibibytes() -> None:
    size = (1 << 31) + 5
    with mpitask.load(workers=1):
        made = mpitask.python_app(bytes)(size)
        assert mpitask.python_app(len)(made).result(timeout=280) == size
        data = made.result(timeout=280)
        del made
        assert len(data) == size
        assert mpitask.python_app(len)(data).result(timeout=280) == size
