"""`map` over items some of which take very long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpitask


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[mpitask.Engine]:
    with mpitask.load(workers=4) as engine:
        yield engine


def test_items_that_do_not_end_hold_no_others_up(tmp_path: Path) -> None:
    """Three of the first spans wait for an item far behind them, which the fourth worker must come to."""
    marker = tmp_path / "the hundredth"

    def wait_for_the_hundredth(i: int) -> int:
        if i == 100:
            marker.touch()
        deadline = time.monotonic() + 60
        while i in (0, 4, 8) and not marker.exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return i

    assert mpitask.map(wait_for_the_hundredth, range(200), chunksize=1).result(120) == list(range(200))


def test_cancelling_ends_it_while_spans_wait() -> None:
    def sleep(_: int) -> None:
        time.sleep(0.01)

    results = mpitask.map(sleep, range(10**9), chunksize=1)
    next(iter(results))
    assert results.cancel()
    assert results.cancelled()
    assert mpitask.map(str, range(3)).result(60) == ["0", "1", "2"]
