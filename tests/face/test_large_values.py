"""Arguments, dependencies and results that are larger than the rings to the workers."""

from __future__ import annotations

import pytest

import mpitask


def make(i: int, size: int) -> bytes:
    return i.to_bytes(4, "little") + bytes(size - 4)


def numbers(*values: bytes) -> list[int]:
    return [int.from_bytes(value[:4], "little") for value in values]


def send_within(n: int, size: int) -> tuple[list[int], int]:
    """Large arguments up and large values down, through the worker's own engine; and how often its guard was needed."""
    collect, app = mpitask.python_app(numbers), mpitask.python_app(make)
    data = [make(i, size) for i in range(n)]
    values = [
        future.result() for future in [collect(*data) for _ in range(6)] + [collect(app(1, size)) for _ in range(6)]
    ]
    return [sum(value) for value in values], mpitask.current().stats()["guards"]


@pytest.mark.parametrize("inline", [False, True])
def test_nobody_waits_for_the_guard(inline: bool) -> None:
    """A task with more inputs than fit into the ring gets them as it reads them, not in steps of the guard's 200 ms."""
    with mpitask.load(inline=True) if inline else mpitask.load(workers=2) as engine:
        app, collect = mpitask.python_app(make), mpitask.python_app(numbers)
        for _ in range(10):
            made = [app(i, 100_000) for i in range(100)]
            for future in made:
                future.exception(timeout=60)
            assert collect(*made).result(timeout=60) == list(range(100))
            assert engine.stats()["guards"] == 0


def test_large_results_come_back_while_large_arguments_go_out() -> None:
    with mpitask.load(workers=2, ring_bytes=4096) as engine:
        app, collect = mpitask.python_app(make), mpitask.python_app(numbers)
        data = [make(i, 50_000) for i in range(8)]
        for _ in range(20):
            echoes = [collect(*data) for _ in range(4)] + [app(7, 300_000) for _ in range(4)]
            values = [future.result(timeout=60) for future in echoes]
            assert values[:4] == [list(range(8))] * 4
            assert [len(value) for value in values[4:]] == [300_000] * 4
        assert engine.stats()["guards"] == 0


def test_a_task_s_own_engine_is_woken_too() -> None:
    with mpitask.load(workers=2, ring_bytes=4096) as engine:
        app = mpitask.python_app(send_within)
        for _ in range(5):
            assert app(4, 30_000).result(timeout=60) == ([6] * 6 + [1] * 6, 0)
        assert engine.stats()["guards"] == 0
