"""Calls that the engine cannot take at once."""

from __future__ import annotations

from typing import Any

import pytest

import mpitask
from mpitask import submission
from mpitask.codec import FLAT, MARSHAL
from mpitask.native import lib

REFUSED = (1 << 64) + lib.MT_E_INTR
"""What the core answers when its inbox has been full for a while, so that Python can look for signals."""


@pytest.mark.parametrize(("way", "codec"), [("_submit", MARSHAL), ("_submit_edges", FLAT)])
def test_a_call_that_has_to_wait_is_encoded_as_any_other(way: str, codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    really = getattr(submission, way)
    codecs: list[int] = []

    def refuse_twice(driver: Any, fn_id: int, kind: int, *rest: Any) -> int:
        codecs.append(kind)
        return REFUSED if len(codecs) < 3 else int(really(driver, fn_id, kind, *rest))

    with mpitask.load(workers=1):
        app = mpitask.python_app(lambda *args: args)
        first = app(0)
        assert first.result(timeout=60) == (0,)
        monkeypatch.setattr(submission, way, refuse_twice)
        if way == "_submit":
            assert app(1, "a").result(timeout=60) == (1, "a")
        else:
            assert app(first, 1).result(timeout=60) == ((0,), 1)
        monkeypatch.undo()
    assert codecs == [codec] * 3
