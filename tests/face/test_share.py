"""`share`: sent to each worker once, decoded there once, mapped where it is large, and dropped when nobody needs it."""

from __future__ import annotations

import dataclasses
import functools
import gc
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpitask
from mpitask import Engine, SerializationError, python_app

MB = 1 << 20
LARGE = MB  # numbers in a large array: 8 MB


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with mpitask.load(workers=2) as engine:
        while engine.stats()["slots"] < 2:
            time.sleep(0.01)
        yield engine


def soon(condition: Callable[[], Any], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it has not become true"
        time.sleep(0.005)


def open_files() -> int:
    """What other tests have left to the garbage collector does not count."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@python_app
def echo(x: Any, **kwargs: Any) -> Any:
    return (x, kwargs) if kwargs else x


@python_app
def total(array: Any, add: float = 0.0) -> float:
    return float(array.sum()) + add


@python_app
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def mappings() -> list[str]:
    """The lines of this process's memory map that are objects of an engine."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "mpitask-object" in line]


def own_kb() -> int:
    """Memory of this process that is part of no file."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


class Counted:
    """Writes a line with the process id into a file each time it is unpickled."""

    def __init__(self, log: str, filling: bytes = b"") -> None:
        self.log, self.filling = log, filling

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with Path(self.log).open("a") as file:
            file.write(f"{os.getpid()}\n")


@dataclasses.dataclass
class Box:
    inside: Any


@pytest.mark.parametrize(
    "value",
    [
        *(None, 5, "text", b"bytes", [1, {"a": (2, 3)}], {1, 2}, np.arange(10), np.ones((300, 300)), bytearray(10)),
        *(b"x" * 2 * MB, np.ones((3, 4)).T, np.arange(20)[::2], np.array([[1], "a"], dtype=object), [np.ones(3)] * 2),
    ],
)
def test_the_value_arrives_equal(engine: Engine, value: Any) -> None:
    shared = mpitask.share(value)
    assert pickle.dumps(echo(shared).result(timeout=60)) == pickle.dumps(pickle.loads(pickle.dumps(value)))
    assert pickle.dumps(shared.result(timeout=60)) == pickle.dumps(shared.value)
    assert shared.done()
    assert not shared.cancel()


@pytest.mark.parametrize("size", [10, 100_000, 3 * MB])
def test_it_is_sent_and_unpickled_once_for_each_worker(engine: Engine, tmp_path: Path, size: int) -> None:
    log = tmp_path / "log"
    shared = mpitask.share(Counted(str(log), bytes(size)))
    length = python_app(lambda counted: len(counted.filling))
    sent, mapped = engine.stats()["objects_sent"], engine.stats()["objects_mapped"]
    assert [f.result(timeout=60) for f in [length(shared) for _ in range(200)]] == [size] * 200
    unpickled = log.read_text().split()
    assert len(set(unpickled)) == len(unpickled) <= 2
    assert engine.stats()["objects_sent"] - sent <= 2 + 2  # the function and the object, to two workers
    assert engine.stats()["objects_mapped"] - mapped == (len(unpickled) if size >= MB else 0)


def test_it_is_the_same_object_for_all_tasks_of_a_worker(engine: Engine) -> None:
    shared = mpitask.share([1, 2])
    where = python_app(lambda found: (os.getpid(), id(found)))
    assert len({f.result(timeout=60) for f in [where(shared) for _ in range(50)]}) <= 2


@pytest.mark.parametrize("n", [3, 500, 100_000, LARGE])
@pytest.mark.parametrize("shape", ["plain", "transposed", "gaps"])
def test_arrays_cannot_be_changed(engine: Engine, n: int, shape: str) -> None:
    array = np.arange(2 * n, dtype=float).reshape(n, 2)
    array = {"plain": array, "transposed": array.T, "gaps": array[:, :1]}[shape]
    shared = mpitask.share({"a": array})

    @python_app
    def change(found: dict[str, Any]) -> None:
        found["a"][...] = 7  # `fill` does not ask, up to numpy 1.24

    with pytest.raises(ValueError, match="read-only"):
        change(shared).result(timeout=60)
    assert not shared.result()["a"].flags.writeable
    assert np.array_equal(echo(shared).result(timeout=60)["a"], array)


def test_a_large_array_is_mapped_and_not_copied(engine: Engine) -> None:
    @python_app
    def look(array: Any) -> tuple[float, int, int]:
        before = own_kb()
        found = float(array.sum())
        return found, own_kb() - before, len(mappings())

    shared = mpitask.share(np.ones(4 * LARGE))
    for future in [look(shared) for _ in range(20)]:
        found, grown_kb, n_mappings = future.result(timeout=60)
        assert found == 4 * LARGE
        assert grown_kb < 8000  # a quarter of the array
        assert n_mappings == 1


def test_a_large_value_that_both_workers_need_is_mapped_and_may_be_changed_by_each_task(engine: Engine) -> None:
    @python_app
    def make() -> Any:
        return np.ones(LARGE)

    @python_app
    def change(array: Any, i: int) -> tuple[float, float, int, bool]:
        before = float(array.sum())
        array[:] = i
        time.sleep(0.005)
        return before, float(array.sum()), os.getpid(), bool(mappings())

    array = make()
    found = [f.result(timeout=60) for f in [change(array, i) for i in range(20)]]
    assert [x[:2] for x in found] == [(LARGE, i * LARGE) for i in range(20)]
    by_worker = {x[2:] for x in found}  # to the first one the bytes were sent
    assert len(by_worker) == 2
    assert sorted(is_mapped for _, is_mapped in by_worker) == [False, True]
    assert float(array.result().sum()) == LARGE
    assert python_app(mappings)().result(timeout=60) == []


def test_a_view_outlives_the_object(engine: Engine) -> None:
    @python_app
    def keep(array: Any) -> int:
        import builtins

        builtins.kept = array[5:]  # type: ignore[attr-defined]
        return os.getpid()

    @python_app
    def look() -> tuple[float, int]:
        import builtins

        array = builtins.__dict__.pop("kept", None)
        return -1 if array is None else float(array.sum()), os.getpid()

    for n in (1000, LARGE):
        shared = mpitask.share(np.ones(n))
        pid = keep(shared).result(timeout=60)
        objects = engine.stats()["objects"]
        del shared
        soon(lambda objects=objects: engine.stats()["objects"] < objects)
        nap(0.05).result(timeout=60)
        found = [f.result(timeout=60) for f in [look() for _ in range(20)]]
        assert (float(n - 5), pid) in found


def test_the_roots_view_outlives_the_handle(engine: Engine) -> None:
    files = open_files()
    shared = mpitask.share(np.ones(LARGE))
    array = shared.result(timeout=60)[3:]
    del shared
    nap(0.01).result(timeout=60)
    assert float(array.sum()) == LARGE - 3
    assert open_files() == files + 1
    del array
    soon(lambda: open_files() == files)


@pytest.mark.parametrize("how", ["argument", "closure", "partial", "map"])
def test_it_is_dropped_when_nobody_needs_it(engine: Engine, how: str) -> None:
    python_app(mappings)().result(timeout=60)
    files, objects = open_files(), engine.stats()["objects"]
    shared: Any = mpitask.share(np.ones(LARGE))
    if how == "map":
        assert mpitask.map(lambda x, s=shared: float(s[x]), range(10)).result(timeout=60) == [1.0] * 10
    else:
        app: Any = functools.partial(total, shared)
        if how == "closure":
            app = python_app(lambda s=shared: float(s.sum()))
        elif how == "partial":
            app = python_app(functools.partial(total.__wrapped__, shared))
        assert [f.result(timeout=60) for f in [app() for _ in range(20)]] == [LARGE] * 20
        assert open_files() == files + 1
        del app
    del shared
    extra = 1 if how == "argument" else 0  # the function `total` stays
    soon(lambda: engine.stats()["objects"] == objects + extra)
    soon(lambda: open_files() == files)
    look = python_app(mappings)
    soon(lambda: [f.result(timeout=60) for f in [look() for _ in range(4)]] == [[]] * 4)


def test_tasks_that_wait_keep_it(engine: Engine) -> None:
    late = total(mpitask.share(np.ones(LARGE)), nap(0.2))
    assert late.result(timeout=60) > LARGE


@pytest.mark.parametrize("n", [10, LARGE])
def test_it_may_be_anywhere_in_the_arguments(engine: Engine, n: int) -> None:
    shared = mpitask.share(np.ones(n))
    app = python_app(lambda *args, **kwargs: float(args[0][0]["x"].inside.sum()) + float(kwargs["more"][1].sum()))
    assert app([{"x": Box(shared)}], more=(0, shared)).result(timeout=60) == 2 * n
    assert total(array=shared, add=1).result(timeout=60) == n + 1
    assert total(shared, total(shared)).result(timeout=60) == 2 * n
    assert python_app(lambda a, b: a is b)(shared, [shared][0]).result(timeout=60)
    assert mpitask.map(lambda pair: float(pair[0].sum()) + pair[1], [(shared, i) for i in range(5)]).result(
        timeout=60
    ) == [n + i for i in range(5)]


@pytest.mark.parametrize("n", [10, LARGE])
def test_functions_may_capture_it(engine: Engine, n: int) -> None:
    a, b = mpitask.share(np.ones(n)), mpitask.share([10])
    closure: Any = python_app(lambda x, y=0: float(a.sum()) + b[0] + x + y)  # type: ignore[attr-defined, index]
    assert closure(1).result(timeout=60) == n + 11
    assert closure(1, y=2).result(timeout=60) == n + 13
    assert closure(total(a)).result(timeout=60) == 2 * n + 10  # edges of its own come first
    assert closure(1, y=total(a)).result(timeout=60) == 2 * n + 11
    partial = python_app(functools.partial(total.__wrapped__, a))
    assert [f.result(timeout=60) for f in [partial(i) for i in range(20)]] == [n + i for i in range(20)]
    assert mpitask.map(lambda x: float(a.sum()) + x, range(100)).result(timeout=60) == [n + i for i in range(100)]
    summed = mpitask.map(lambda x: x, range(10)).reduce(lambda x, y: x + y + (b[0] - 10))
    assert summed.result(timeout=60) == 45
    with mpitask.Executor() as executor:
        assert executor.submit(lambda x: x + b[0], 1).result(timeout=60) == 11
        assert executor.submit(functools.partial(total.__wrapped__, a), add=1).result(timeout=60) == n + 1


def test_other_functions_pay_nothing(engine: Engine) -> None:
    total(np.ones(3)).result(timeout=60)
    assert not engine._captured
    shared = mpitask.share(1)
    assert python_app(functools.partial(echo.__wrapped__, shared))().result(timeout=60) == 1
    soon(lambda: not engine._captured)


def test_calls_with_more_to_them_take_it_too(engine: Engine, tmp_path: Path) -> None:
    shared = mpitask.share(np.ones(LARGE))

    @python_app(cache=True)
    def cached(array: Any) -> tuple[float, float]:
        return float(array.sum()), time.monotonic()

    assert cached(shared).result(timeout=60) == cached(shared).result(timeout=60)

    @python_app
    def talks(array: Any, stdout: str = "") -> float:
        print(array.sum())
        return float(array.sum())

    assert talks(shared, stdout=str(tmp_path / "out")).result(timeout=60) == LARGE

    @mpitask.join_app
    def join(array: Any) -> Any:
        assert not array.flags.writeable
        return total(array[:10])

    assert join(shared).result(timeout=60) == 10


def test_its_interface(engine: Engine) -> None:
    shared = mpitask.share(np.ones(10))
    assert repr(shared) == f"<mpitask.Shared ndarray, {shared.nbytes} bytes>"
    assert 80 < shared.nbytes < 1000
    assert shared.result() is shared.value
    with pytest.raises(
        AttributeError, match="'Shared' object has no attribute 'shape'; the object that is shared is its"
    ):
        shared.shape  # noqa: B018
    with pytest.raises(TypeError, match="a Shared cannot be indexed"):
        shared[0]
    called: list[Any] = []
    shared.add_done_callback(called.append)
    soon(lambda: called == [shared])
    before = np.arange(3)
    snapshot = mpitask.share(before)
    before[0] = 7
    assert echo(snapshot).result(timeout=60).tolist() == snapshot.value.tolist() == [0, 1, 2]


def test_what_cannot_be(engine: Engine) -> None:
    shared = mpitask.share([1])
    with pytest.raises(TypeError, match="a shared object can be pickled only as an argument of a task or as part of"):
        pickle.dumps(shared)
    with pytest.raises(SerializationError, match="an object of type list cannot be shared: TypeError: a shared object"):
        mpitask.share([shared])
    with pytest.raises(SerializationError, match="an object of type list cannot be shared: TypeError: a future"):
        mpitask.share([echo(1)])
    with pytest.raises(
        SerializationError, match="an object of type generator cannot be shared: TypeError: cannot pickle"
    ):
        mpitask.share(i for i in range(3))
    future = echo(1)
    with pytest.raises(SerializationError, match="a future can be pickled only as an argument"):
        python_app(lambda: future)()
    share_there = python_app(lambda: mpitask.share(1))
    with pytest.raises(SerializationError, match="a shared object can be pickled only"):
        share_there().result(timeout=60)


@pytest.mark.parametrize("n", [100, pytest.param(LARGE, marks=pytest.mark.long)])
def test_a_worker_that_replaces_a_dead_one_gets_it_again(engine: Engine, n: int) -> None:
    shared = mpitask.share(np.ones(n))
    value = echo(np.ones(n))
    by_function = python_app(lambda x: float(shared[:10].sum()) + x)
    for _ in range(3):
        for pid in {nap(0.02).result(timeout=60) for _ in range(4)}:
            os.kill(pid, signal.SIGKILL)
        retried = python_app(total.__wrapped__, retries=5)
        assert retried(shared).result(timeout=60) == retried(value).result(timeout=60) == n
        assert [f.result(timeout=60) for f in [retried(shared) for _ in range(20)]] == [n] * 20
        assert python_app(lambda x: float(shared[:10].sum()) + x, retries=5)(1).result(timeout=60) == 11
    soon(lambda: engine.stats()["slots"] == 2)
    assert [f.result(timeout=60) for f in [by_function(i) for i in range(10)]] == [10 + i for i in range(10)]


def test_a_worker_may_die_while_it_has_it_mapped(engine: Engine) -> None:
    @python_app(retries=0)
    def die(array: Any) -> None:
        array.sum()
        os.kill(os.getpid(), signal.SIGKILL)

    files = open_files()
    shared = mpitask.share(np.ones(LARGE))
    with pytest.raises(mpitask.WorkerLost):
        die(shared).result(timeout=60)
    assert total(shared).result(timeout=60) == LARGE
    del shared
    soon(lambda: open_files() == files)
