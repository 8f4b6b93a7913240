"""`map` over a local engine, against the builtin of the same name."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import itertools
import operator
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpitask
from mpitask import ConfigurationError


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[mpitask.Engine]:
    with mpitask.load(workers=2) as engine:
        yield engine


def double(x: Any) -> Any:
    return x * 2


def picky(x: int) -> int:
    if x % 10 == 7:
        raise ValueError(f"not {x}")
    return x


@settings(max_examples=25)
@given(
    st.lists(st.one_of(st.integers(), st.text(), st.lists(st.integers()), st.floats(allow_nan=False)), max_size=60),
    st.one_of(st.just("auto"), st.integers(1, 70)),
    st.booleans(),
    st.sampled_from(["list", "tuple", "generator", "dict keys"]),
)
def test_as_the_builtin(items: list[Any], chunksize: Any, ordered: bool, kind: str) -> None:
    kinds: dict[str, Any] = {"list": items, "tuple": tuple(items), "generator": (x for x in items)}
    kinds["dict keys"] = dict.fromkeys(range(len(items))).keys()
    expected = list(map(double, kinds["dict keys"] if kind == "dict keys" else items))
    found = list(mpitask.map(double, kinds[kind], chunksize=chunksize, ordered=ordered))
    if ordered:
        assert found == expected
    else:
        assert sorted(map(repr, found)) == sorted(map(repr, expected))


@settings(max_examples=15)
@given(st.integers(0, 400), st.integers(1, 50), st.integers(-3, 3).filter(bool))
def test_ranges(n: int, chunksize: int, step: int) -> None:
    numbers = range(5, 5 + n * step, step)
    future = mpitask.map(double, numbers, chunksize=chunksize)
    assert len(future) == n
    assert future.result(timeout=60) == [2 * i for i in numbers]
    assert future.done()


def test_several_iterables_end_with_the_shortest() -> None:
    assert mpitask.map(operator.add, [1, 2, 3], itertools.count(10)).result(timeout=60) == [11, 13, 15]
    assert len(mpitask.map(pow, [1, 2], [3, 4, 5])) == 2


def test_values_of_any_kind_survive() -> None:
    values = [np.float64(1.5), (1, 2), {"a": 1}, bytearray(b"x"), True, None, range(3), Path("a")]
    found = mpitask.map(functools.partial(operator.getitem, values), range(len(values)), chunksize=3).result(timeout=60)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@settings(max_examples=10)
@given(st.lists(st.text(max_size=3), max_size=80), st.integers(1, 20), st.booleans())
def test_reduction_keeps_the_order(words: list[str], chunksize: int, with_initial: bool) -> None:
    future = mpitask.map(str, words, chunksize=chunksize)
    if with_initial:
        assert future.reduce(operator.add, "<").result(timeout=60) == "<" + "".join(words)
    elif words:
        assert future.reduce(operator.add).result(timeout=60) == "".join(words)
    else:
        with pytest.raises(TypeError, match="empty map"):
            future.reduce(operator.add).result(timeout=60)


def test_reduction_of_arrays() -> None:
    total = mpitask.map(np.ones, [1000] * 200, chunksize=7).reduce(operator.add).result(timeout=60)
    assert (total == 200).all()


def test_a_failing_item_is_named_and_the_others_go_on() -> None:
    future = mpitask.map(picky, range(30), chunksize=4)
    with pytest.raises(ValueError, match="not 7") as caught:
        future.result(timeout=60)
    assert caught.value.__notes__ == ["(item 7 of the map)"]
    assert future.futures[8].result(timeout=60) == 8
    with pytest.raises(ValueError, match="not 17"):
        future.futures[17].result(timeout=60)
    with pytest.raises(ValueError, match=r"not (7|17|27)"):  # whichever is known first
        mpitask.map(picky, range(30)).reduce(max).result(timeout=60)
    with pytest.raises(IndexError):
        future.futures[30]


def silent(x: int) -> None:
    picky(x)


@pytest.mark.parametrize("items", [range(100), list(range(100))], ids=["range", "list"])
@pytest.mark.parametrize("chunksize", [1, 5, 100])
def test_functions_that_give_nothing(items: Any, chunksize: int) -> None:
    """What they gave is only a number on its way."""
    assert mpitask.map(silent, items[:7], chunksize=chunksize).result(timeout=60) == [None] * 7
    mixed = mpitask.map(lambda x: None if x < 50 else x, items, chunksize=chunksize)
    assert mixed.result(timeout=60) == [None] * 50 + list(range(50, 100))
    failing = mpitask.map(silent, items, chunksize=chunksize)
    assert failing.futures[6].result(timeout=60) is None
    assert failing.futures[99].result(timeout=60) is None
    with pytest.raises(ValueError, match="not 17"):
        failing.futures[17].result(timeout=60)
    with pytest.raises(ValueError, match="not 7") as caught:
        failing.result(timeout=60)
    assert caught.value.__notes__ == ["(item 7 of the map)"]
    both = mpitask.map(silent, items[:7], chunksize=chunksize).reduce(lambda a, b: a or b)
    assert both.result(timeout=60) is None


def test_what_is_equal_to_none_is_not_none() -> None:
    class Anything:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    found = mpitask.map(lambda x: Anything() if x else None, range(3), chunksize=3).result(timeout=60)
    assert [type(value).__name__ for value in found] == ["NoneType", "Anything", "Anything"]
    arrays = mpitask.map(lambda x: np.ones(3) if x else None, range(3), chunksize=3).result(timeout=60)
    assert arrays[0] is None
    assert [value.sum() for value in arrays[1:]] == [3, 3]


@pytest.mark.parametrize("items", [range(20), list(range(20))], ids=["range", "list"])
def test_a_function_that_raises_stop_iteration(items: Any) -> None:
    """It is a failure of its item like any other, and ends nothing; a generator gives it as Python lets it."""

    def first_of(x: int) -> int:
        return next(iter([x] if x != 3 else []))

    future = mpitask.map(first_of, items, chunksize=10)
    assert future.futures[19].result(timeout=60) == 19
    with pytest.raises(StopIteration):
        future.futures[3].result(timeout=60)
    with pytest.raises(RuntimeError) as caught:
        future.result(timeout=60)
    assert isinstance(caught.value.__cause__, StopIteration)
    assert caught.value.__cause__.__notes__ == ["(item 3 of the map)"]


def test_an_endless_generator_is_read_only_a_little_ahead() -> None:
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for i in itertools.count():
            taken = i
            yield i

    future = mpitask.map(double, numbers(), chunksize=10)
    try:
        results = iter(future)
        read = [next(results)]
        before = taken  # until somebody reads, it goes on by itself
        while len(read) < before + 500:
            read.append(next(results))
        assert read == [2 * i for i in range(len(read))]
        assert taken < len(read) + 10 * 40
        with pytest.raises(TypeError, match="not known"):
            len(future)
    finally:
        assert future.cancel()


def test_an_iterable_that_raises() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        mpitask.map(double, broken()).result(timeout=60)
    with pytest.raises(OSError, match="disk gone"):
        mpitask.map(double, broken()).reduce(operator.add).result(timeout=60)


def test_cancel(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")

    def wait(_: int) -> None:
        while not os.path.exists(gate):  # noqa: PTH110
            time.sleep(0.005)

    future = mpitask.map(wait, range(10_000), chunksize=1)
    assert future.cancel()
    Path(gate).touch()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=60)
    assert future.cancelled()


def test_a_huge_range_costs_nothing_to_submit(engine: mpitask.Engine) -> None:
    before = engine.stats()["submitted"]
    future = mpitask.map(double, range(10**12))
    assert len(future) == 10**12
    assert next(iter(future)) == 0
    assert engine.stats()["submitted"] - before < 1000
    assert future.cancel()


def test_the_end_of_the_engine_waits_for_what_was_not_submitted_yet(tmp_path: Path) -> None:
    done = mpitask.map(double, iter(range(5000)), chunksize=50)
    mpitask.current().wait(timeout=60)
    assert done.done()
    assert len(done.result()) == 5000


def test_bad_input() -> None:
    for chunksize in (0, -1, 1.5, "many", True):
        with pytest.raises(ConfigurationError, match="chunksize"):
            mpitask.map(double, [1], chunksize=chunksize)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        mpitask.map(double, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="5 cannot be called"):
        mpitask.map(5, [1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'sum' cannot be called"):
        mpitask.map(double, [1]).reduce("sum")  # type: ignore[arg-type]


def test_an_app_stands_for_its_function() -> None:
    assert mpitask.map(mpitask.python_app(double), [1, 2]).result(timeout=60) == [2, 4]


def test_results_that_are_read_before_their_callback_do_not_stop_the_feeding() -> None:
    """The reader may pass a chunk, and give its results up, before the feeder has heard of its end."""
    future = mpitask.map(double, iter(range(10_000)), chunksize=1)
    heard = type(future)._piece_ended

    def late(chunk: object, task: object) -> None:
        time.sleep(0.001)  # lets the reader be first
        heard(future, chunk, task)  # type: ignore[arg-type]

    future._piece_ended = late  # type: ignore[method-assign]
    assert sum(itertools.islice(future, 500)) == 2 * sum(range(500))
    assert future.cancel() or future.cancelled()  # the end of the iteration cancels it, too
    assert "of ? items have ended" in repr(future)


# -- ranges, which the ranks cut themselves --


def slow(x: int) -> int:
    time.sleep(0.002)
    return x


def item(x: Any) -> Any:
    return x


def test_a_billion_numbers_are_submitted_at_once_and_the_first_results_arrive(engine: mpitask.Engine) -> None:
    before = engine.stats()["submitted"]
    future = mpitask.map(double, range(10**9))
    assert len(future) == 10**9
    results = iter(future)
    assert [next(results) for _ in range(100_000)] == [2 * i for i in range(100_000)]
    assert future.cancel()
    assert future.cancelled()
    assert engine.stats()["submitted"] - before < 1000
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=60)


@pytest.mark.parametrize(
    "numbers",
    [range(0), range(5, 5), range(7, 8), range(-3, 10**5, 7), range(10**5, -4, -3), range(2**70, 2**70 + 500, 5)],
    ids=repr,
)
@pytest.mark.parametrize("ordered", [True, False])
def test_ranges_of_any_kind(numbers: range, ordered: bool) -> None:
    future = mpitask.map(item, numbers, ordered=ordered)
    assert len(future) == len(numbers)
    found = list(future)
    assert (found if ordered else sorted(found, reverse=numbers.step < 0)) == list(numbers)
    assert future.done()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5000),
        np.arange(200, 3, -4, dtype=np.uint8),
        np.arange(-5, 100, 3, dtype=">i2"),
        np.arange(2**63, 2**63 + 700, 7, dtype=np.uint64),
        np.zeros(100, dtype=np.int32),
        np.array([3]),
        np.array([], dtype=np.int64),
        np.array([1, 2, 3, 5, 5]),
        np.array([200, 255, 54], dtype=np.uint8),
        np.linspace(0, 1, 3000),
        np.arange(60).reshape(20, 3),
        np.array(["a", "b"], dtype=object),
    ],
    ids=lambda a: f"{a.dtype.str}{a.shape}",
)
def test_arrays(array: Any) -> None:
    found = mpitask.map(item, array).result(timeout=60)
    assert len(found) == len(array)
    for got, expected in zip(found, array, strict=True):
        assert type(got) is type(expected)
        assert np.array_equal(got, expected)


def test_an_array_that_is_a_range_is_not_sent(engine: mpitask.Engine) -> None:
    before = engine.stats()["submitted"]
    assert mpitask.map(item, np.arange(10**6)).reduce(operator.add).result(timeout=60) == 10**6 * (10**6 - 1) // 2
    assert engine.stats()["submitted"] - before < 100


@pytest.mark.parametrize("chunksize", [1, 3, 50, 2**40])
def test_a_worker_is_given_as_many_items_at_a_time_as_asked_for(chunksize: int) -> None:
    future = mpitask.map(item, range(200), chunksize=chunksize)
    assert future.result(timeout=60) == list(range(200))
    sizes: list[int] = []
    for piece in future._tasks:
        starts = piece.task.result().starts
        sizes += np.diff([*starts, piece.stop - piece.first]).tolist()
    *whole, last = sizes
    assert set(whole) <= {chunksize}
    assert last <= chunksize
    assert sum(sizes) == 200


def test_an_exception_of_an_item_of_a_range_has_its_index() -> None:
    future = mpitask.map(picky, range(2, 20_000, 5))  # item 1 is 7
    with pytest.raises(ValueError, match="not 7\n") as caught:
        future.result(timeout=60)
    assert caught.value.__notes__ == ["(item 1 of the map)"]
    assert future.futures[2].result(timeout=60) == 12
    with pytest.raises(ValueError, match="not 19997\n") as caught:
        future.futures[-1].result(timeout=60)
    assert "(item 3999 of the map)" in caught.value.__notes__
    assert future.futures[3998].result(timeout=60) == 19992
    with pytest.raises(ValueError, match="not 7\n") as caught:
        mpitask.map(picky, range(2, 20_000, 5)).reduce(max).result(timeout=60)
    assert "(item 1 of the map)" in caught.value.__notes__


def test_an_exception_late_in_a_reduction_has_its_index() -> None:
    def only_one(x: int) -> int:
        if x == 150_001:
            raise LookupError("here")
        return x

    future = mpitask.map(only_one, range(200_000))
    with pytest.raises(LookupError, match="here") as caught:
        future.reduce(max).result(timeout=60)
    assert "(item 150001 of the map)" in caught.value.__notes__


def test_the_reduction_of_a_range_keeps_the_order() -> None:
    for n in (1, 2, 5000):
        expected = "<" + "".join(f"{i}," for i in range(n))
        future = mpitask.map("{},".format, range(n), chunksize=3).reduce(operator.add, initial="<")
        assert future.result(timeout=60) == expected
    assert mpitask.map(item, range(0)).reduce(operator.add, initial=5).result(timeout=60) == 5
    with pytest.raises(TypeError, match="empty map"):
        mpitask.map(item, range(0)).reduce(operator.add).result(timeout=60)


def test_the_reduction_of_arrays_over_a_range() -> None:
    def ones(i: int) -> Any:
        return np.full(5000, i)

    total = mpitask.map(ones, range(300), chunksize=7).reduce(operator.add).result(timeout=60)
    assert total.shape == (5000,)
    assert (total == sum(range(300))).all()


def test_two_ranges_at_once(engine: mpitask.Engine) -> None:
    first = mpitask.map(item, range(300_000))
    second = mpitask.map(slow, range(100))
    third = engine.call(engine.function_id(double), (4,), {})
    assert third.result(timeout=60) == 8
    assert second.result(timeout=60) == list(range(100))
    assert first.result(timeout=60) == list(range(300_000))


def test_items_far_away(engine: mpitask.Engine) -> None:
    future = mpitask.map(double, range(400_000))
    assert future.futures[399_999].result(timeout=60) == 799_998
    assert [f.result(timeout=60) for f in future.futures[200_000:200_003]] == [400_000, 400_002, 400_004]
    with pytest.raises(IndexError):
        future.futures[400_000]


def test_maps_leave_nothing_with_the_engine() -> None:
    """Neither their functions nor what combines stays, however many maps a script makes."""
    engine = mpitask.current()

    def play() -> None:
        for items in (range(100), list(range(100))):
            future = mpitask.map(lambda x: x + 1, items)
            assert future.result(timeout=60) == list(range(1, 101))
            assert mpitask.map(lambda x: x + 1, items).reduce(lambda a, b: a + b).result(timeout=60) == 5050

    play()  # what is there for all maps
    gc.collect()
    engine.wait(timeout=60)
    functions, deadline = len(engine._functions), time.monotonic() + 60
    before = engine.stats()["objects"]
    for _ in range(5):
        play()
    gc.collect()
    while (engine.stats()["objects"] > before or len(engine._functions) > functions) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.stats()["objects"] <= before
    assert len(engine._functions) <= functions


def test_a_reader_may_pass_a_piece_before_its_feeder_goes_on(
    engine: mpitask.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    submitted = threading.Event()
    poke = engine.poke

    def wait_for_the_reader() -> None:
        poke()
        if threading.current_thread().name == "mpitask-map":
            deadline = time.monotonic() + 60
            while any(piece.future is not None for piece in found[0]._tasks):
                assert time.monotonic() < deadline
                time.sleep(0.001)

    def items() -> Iterator[int]:
        assert submitted.wait(60)
        yield from range(10)

    monkeypatch.setattr(engine, "poke", wait_for_the_reader)
    found.append(mpitask.map(double, items(), chunksize=2))
    submitted.set()
    assert list(found[0]) == [2 * i for i in range(10)]
