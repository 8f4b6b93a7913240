"""Which tasks run, and what is kept of them."""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

from mpitask.errors import ConfigurationError, DependencyError, InternalError, TaskError, WorkerLost
from mpitask.memo import (
    BadCheckpoint,
    BasicMemoizer,
    Memoizer,
    get_last_checkpoint,
    load_checkpoints,
    make_key,
    read_store,
)

Task = dict[str, Any]


def double(x: Any, verbose: bool = False) -> Any:
    return x * 2


def task(*args: Any, func: Any = double, memoize: bool = True, **kwargs: Any) -> Task:
    return {
        "id": 7,
        "memoize": memoize,
        "func": func,
        "args": args,
        "kwargs": kwargs,
        "ignore_for_cache": ["verbose"],
        "app_fu": Future(),
    }


class Runs:
    """An engine that can only start runs: `<base>/NNN` for each."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.count = 0
        self.memoizers: list[BasicMemoizer] = []

    def start(self, memoizer: BasicMemoizer) -> BasicMemoizer:
        self.memoizers.append(memoizer)
        memoizer.start(run_dir=str(self.run_dir), config_run_dir=str(self.base))
        self.count += 1
        return memoizer

    @property
    def run_dir(self) -> Path:
        return self.base / f"{self.count:03}"

    def store(self, run: int) -> Path:
        return self.base / f"{run:03}" / "checkpoint" / "tasks.memo"


@pytest.fixture
def runs(tmp_path: Path) -> Any:
    runs = Runs(tmp_path / "runinfo")
    yield runs
    for memoizer in runs.memoizers:
        memoizer.close()


def run(memoizer: Memoizer, new: Task) -> Any:
    """What an engine does with a task; its result, or None and an exception."""
    future = memoizer.check_memo(new)
    if future is not None:
        memoizer.update_memo_result(new, future.result())
        return future.result()
    result = new["func"](*new["args"], **new["kwargs"])
    memoizer.update_memo_result(new, result)
    new["app_fu"].set_result(result)
    return result


def wait_for(condition: Any) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def stored(path: Path) -> list[Any]:
    return [pickle.loads(payload) for _, payload in read_store(path)] if path.exists() else []


# -- within a run --


def test_a_result_is_found_again(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer())
    first = task(21)
    assert memoizer.check_memo(first) is None
    assert first["hashsum"] == make_key(double, (21,), {}, ["verbose"])
    memoizer.update_memo_result(first, 42)
    for again in (task(21), task(x=21), task(21, verbose=True), task(21, True)):
        found = memoizer.check_memo(again)
        assert found is not None
        assert found.result(0) == 42
        assert again["hashsum"] == first["hashsum"]
    for other in (task(22), task(21.0), task(21, func=abs)):
        assert memoizer.check_memo(other) is None
    assert not runs.base.exists()


@pytest.mark.parametrize("error", [ValueError("no"), TaskError("a rule of the app is broken")])
def test_an_exception_is_found_again_where_that_is_wanted(runs: Runs, error: Exception) -> None:
    for by_default, of_task, found_again in (
        (False, None, False),
        (True, None, True),
        (False, True, True),
        (True, False, False),
    ):
        memoizer = runs.start(BasicMemoizer(cache_failures=by_default))
        memoizer.check_memo(first := task(1) | {"cache_failures": of_task})
        memoizer.update_memo_exception(first, error)
        found = memoizer.check_memo(task(1))
        assert (found is not None) is found_again
        assert found is None or found.exception(0) is error


@pytest.mark.parametrize(
    "error",
    [
        WorkerLost(1, "host", 2, 9, "worker"),
        DependencyError(2, 1, 1, ValueError()),
        InternalError(),
        CancelledError(),
        KeyboardInterrupt(),
        SystemExit(1),
    ],
)
def test_what_says_nothing_of_the_function_is_forgotten(runs: Runs, error: BaseException) -> None:
    memoizer = runs.start(BasicMemoizer(cache_failures=True))
    memoizer.check_memo(first := task(1))
    memoizer.update_memo_exception(first, error)
    assert memoizer.check_memo(task(1)) is None


def test_a_running_task_is_shared(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer())
    first, second = task(1), task(1)
    assert memoizer.check_memo(first) is None
    assert memoizer.check_memo(second) is first["app_fu"]
    assert memoizer.check_memo(first) is None  # it is tried again
    memoizer.update_memo_result(second, "of a follower: does not count")
    assert memoizer.check_memo(task(1)) is first["app_fu"]
    memoizer.update_memo_result(first, 2)
    found = memoizer.check_memo(task(1))
    assert found is not None
    assert found is not first["app_fu"]
    assert found.result(0) == 2
    memoizer.update_memo_result(first, "too late")
    memoizer.update_memo_exception(first, ValueError())
    again = memoizer.check_memo(task(1))
    assert again is not None
    assert again.result(0) == 2


def test_a_cancelled_task_is_not_waited_for(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer())
    first, second = task(1), task(1)
    assert memoizer.check_memo(first) is None
    first["app_fu"].cancel()
    assert memoizer.check_memo(second) is None
    memoizer.update_memo_exception(first, CancelledError())
    assert memoizer.check_memo(task(1)) is second["app_fu"]


def test_identical_calls_of_many_threads_run_once(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer(checkpoint_mode="task_exit"))
    threads_count, calls_count = 8, 50
    barrier = threading.Barrier(threads_count)
    executed: list[int] = []
    results: list[list[Any]] = []

    def work() -> None:
        mine = []
        for number in range(calls_count):
            barrier.wait()
            new = task(number)
            future = memoizer.check_memo(new)
            if future is None:
                executed.append(number)
                memoizer.update_memo_result(new, [number])
                new["app_fu"].set_result([number])
                future = new["app_fu"]
            mine.append(future.result(30)[0])
        results.append(mine)

    threads = [threading.Thread(target=work) for _ in range(threads_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(executed) == list(range(calls_count))
    assert results == [list(range(calls_count))] * threads_count
    memoizer.close()
    assert sorted(stored(runs.store(0))) == [[number] for number in range(calls_count)]


def test_memoisation_can_be_off(runs: Runs) -> None:
    for memoizer, memoize in ((BasicMemoizer(), False), (BasicMemoizer(memoize=False, checkpoint_mode="manual"), True)):
        runs.start(memoizer)
        for _ in range(2):
            new = task(threading.Lock(), memoize=memoize)  # no key is made
            assert memoizer.check_memo(new) is None
            assert new["hashsum"] is None
            memoizer.update_memo_result(new, 1)
            memoizer.update_memo_exception(new, ValueError())
        memoizer.close()
    assert not runs.base.exists()


def test_an_argument_that_cannot_be_identified_fails_the_task(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer())
    with pytest.raises(ValueError, match=r"_thread\.lock"):
        memoizer.check_memo(task(threading.Lock()))


def test_by_name_the_source_does_not_count(runs: Runs) -> None:
    def make(body: str) -> Any:
        namespace: dict[str, Any] = {"__name__": "somewhere"}
        exec(f"def f(x): return {body}", namespace)
        return namespace["f"]

    memoizer = runs.start(BasicMemoizer())
    assert run(memoizer, task(1, func=make("x")) | {"cache_key": "name"}) == 1
    assert run(memoizer, task(1, func=make("x + 1")) | {"cache_key": "name"}) == 1
    assert run(memoizer, task(1, func=make("x + 1"))) == 2
    assert run(memoizer, task(1, func=make("x + 2"))) == 3


def test_plugins_can_choose(runs: Runs) -> None:
    class NotSeven(BasicMemoizer):
        def check_memo(self, task: Any) -> Any:
            return None if task["args"][0] == 7 else super().check_memo(task)

    memoizer = runs.start(NotSeven(checkpoint_mode="task_exit"))
    for number in (7, 8):
        for _ in range(2):
            run(memoizer, task(number))
    memoizer.close()
    assert stored(runs.store(0)) == [16]
    with pytest.raises(TypeError, match="abstract"):
        Memoizer()  # type: ignore[abstract]


# -- checkpoints --


def test_task_exit(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer(checkpoint_mode="task_exit"))
    assert not runs.store(0).exists()
    for number in (1, 2, 1):
        run(memoizer, task(number))
    wait_for(lambda: len(stored(runs.store(0))) == 2)
    memoizer.close()
    assert stored(runs.store(0)) == [2, 4]


def test_dfk_exit(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer(checkpoint_mode="dfk_exit"))
    run(memoizer, task(1))
    run(memoizer, task(2))
    assert not runs.store(0).exists()
    memoizer.close()
    assert stored(runs.store(0)) == [2, 4]
    memoizer.close()


def test_manual(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer(checkpoint_mode="manual"))
    run(memoizer, task(1))
    assert not runs.store(0).exists()
    memoizer.checkpoint()
    assert stored(runs.store(0)) == [2]
    run(memoizer, task(2))
    assert stored(runs.store(0)) == [2]
    memoizer.checkpoint()
    memoizer.checkpoint()
    assert stored(runs.store(0)) == [2, 4]
    run(memoizer, task(3))
    memoizer.close()  # what has been paid for is not thrown away
    assert stored(runs.store(0)) == [2, 4, 6]


def test_periodic(runs: Runs) -> None:
    memoizer = BasicMemoizer(checkpoint_mode="periodic", checkpoint_period="00:00:01")
    assert memoizer._period_s == 1
    memoizer._period_s = 0.01
    runs.start(memoizer)
    for number in (1, 2):
        run(memoizer, task(number))
        wait_for(lambda: len(stored(runs.store(0))) == number)  # noqa: B023
    memoizer._period_s = 3600
    memoizer.close()
    assert stored(runs.store(0)) == [2, 4]


def test_what_the_last_period_has_not_seen_is_written_at_the_end(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer(checkpoint_mode="periodic", checkpoint_period="10:00:00"))
    run(memoizer, task(1))
    memoizer.close()
    assert stored(runs.store(0)) == [2]


def test_without_a_mode_nothing_is_written(runs: Runs) -> None:
    memoizer = runs.start(BasicMemoizer())
    run(memoizer, task(1))
    with pytest.raises(ConfigurationError, match="checkpoint_mode: one of task_exit, periodic, dfk_exit, manual"):
        memoizer.checkpoint()
    memoizer.close()
    assert not runs.base.exists()


def test_checkpoints_hold_results_only_and_as_they_were(runs: Runs) -> None:
    for mode in ("task_exit", "dfk_exit"):
        memoizer = runs.start(BasicMemoizer(checkpoint_mode=mode, checkpoint_files=[]))
        memoizer.check_memo(failing := task("fails"))
        memoizer.update_memo_exception(failing, ValueError("no"))
        result = run(memoizer, task([1]))
        result.append("changed by its user")
        memoizer.close()
        assert stored(runs.store(runs.count - 1)) == [[1, 1]]


def test_a_later_run_finds_the_results(runs: Runs) -> None:
    first = runs.start(BasicMemoizer(checkpoint_mode="task_exit"))
    assert run(first, task(1)) == 2
    first.close()
    second = runs.start(BasicMemoizer(checkpoint_mode="dfk_exit"))  # all earlier runs
    assert run(second, task(2)) == 4
    assert run(second, task(1)) == 2
    second.close()
    assert sorted(stored(runs.store(1))) == [2, 4]  # so that the last checkpoint is enough
    third = runs.start(BasicMemoizer(checkpoint_files=get_last_checkpoint(runs.base)))
    for number in (1, 2):
        found = third.check_memo(task(number))
        assert found is not None
        assert found.result(0) == 2 * number
    none = runs.start(BasicMemoizer(checkpoint_mode="task_exit", checkpoint_files=[]))
    assert none.check_memo(task(1)) is None
    without_mode = runs.start(BasicMemoizer())
    assert without_mode.check_memo(task(1)) is None


def test_pickle_streams_are_loaded_and_carried_over(runs: Runs, tmp_path: Path) -> None:
    path = tmp_path / "tasks.pkl"
    key = make_key(double, (1,), {}, ["verbose"])
    path.write_bytes(pickle.dumps({"hash": key, "exception": None, "result": "from elsewhere"}))
    memoizer = runs.start(BasicMemoizer(checkpoint_files=[str(path)], checkpoint_mode="manual"))
    assert run(memoizer, task(1)) == "from elsewhere"
    memoizer.checkpoint()
    assert load_checkpoints(runs.store(0)) == {key: "from elsewhere"}


class Fragile:
    def __reduce__(self) -> Any:
        return _fragile, ()


def _fragile() -> Fragile:
    return Fragile()


def test_results_that_cannot_be_pickled_or_unpickled_cost_a_warning(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memoizer = runs.start(BasicMemoizer(checkpoint_mode="task_exit"))
    run(memoizer, task(1, func=lambda x: threading.Lock()))
    assert "the result of task 7 is not in the checkpoint: cannot pickle" in caplog.text
    make = lambda x: Fragile()  # noqa: E731
    run(memoizer, task(1, func=make) | {"cache_key": "name"})
    function = run(memoizer, task(2, func=lambda x: lambda: x))
    memoizer.close()
    assert function() == 2
    assert [type(value).__name__ for value in stored(runs.store(0))] == ["Fragile", "function"]

    memoizer = runs.start(BasicMemoizer(checkpoint_mode="task_exit"))
    monkeypatch.delattr(f"{__name__}._fragile")
    new = task(1, func=make) | {"cache_key": "name"}
    assert memoizer.check_memo(new) is None
    assert "cannot be used, and its task runs again" in caplog.text
    assert memoizer.check_memo(task(1, func=make) | {"cache_key": "name"}) is new["app_fu"]


def test_bad_checkpoints_are_not_passed_over(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="No such file"):
        runs.start(BasicMemoizer(checkpoint_files=[tmp_path / "missing"]))
    memoizer = runs.start(BasicMemoizer(checkpoint_mode="task_exit"))
    run(memoizer, task(1))
    memoizer.checkpoint()
    run(memoizer, task(2))
    memoizer.close()
    data = bytearray(runs.store(0).read_bytes())
    data[30] ^= 1
    runs.store(0).write_bytes(data)
    with pytest.raises(BadCheckpoint, match="valid records follow"):
        runs.start(BasicMemoizer(checkpoint_mode="task_exit"))


def test_a_directory_that_cannot_be_made_fails_no_task(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    runs.base.write_text("a file is in the way")
    memoizer = BasicMemoizer(checkpoint_mode="task_exit", checkpoint_files=[])
    memoizer.start(run_dir=str(runs.run_dir), config_run_dir=str(runs.base))
    for number in (1, 2):
        assert run(memoizer, task(number)) == 2 * number
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    with pytest.raises(FileExistsError):
        memoizer.checkpoint()
    runs.base.unlink()
    memoizer.close()
    assert stored(runs.store(0)) == [2, 4]


def test_a_result_after_the_end(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    memoizer = runs.start(BasicMemoizer(checkpoint_mode="task_exit"))
    memoizer.check_memo(late := task(1))
    memoizer.close()
    memoizer.update_memo_result(late, 2)
    assert "ended after its engine" in caplog.text
    with pytest.raises(ConfigurationError, match="only while an engine"):
        memoizer.checkpoint()


# -- options --


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"checkpoint_mode": "sometimes"}, "'sometimes': give None or one of task_exit, periodic, dfk_exit, manual"),
        ({"checkpoint_mode": "periodic"}, "needs checkpoint_period='HH:MM:SS'"),
        ({"checkpoint_mode": "periodic", "checkpoint_period": "30"}, "'30': give 'HH:MM:SS'"),
        ({"checkpoint_mode": "periodic", "checkpoint_period": "0:0:0"}, "at least '00:00:01'"),
        ({"checkpoint_mode": "periodic", "checkpoint_period": "-1:00:00"}, "give 'HH:MM:SS'"),
        ({"checkpoint_period": 30}, "checkpoint_period=30: give 'HH:MM:SS'"),
        ({"memoize": "yes"}, "memoize='yes': give True or False"),
        ({"checkpoint_files": 3}, "checkpoint_files=3: give a list of paths"),
        ({"checkpoint_files": [3]}, "give a list of paths"),
    ],
)
def test_wrong_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        BasicMemoizer(**options)


def test_options(caplog: pytest.LogCaptureFixture) -> None:
    assert BasicMemoizer(checkpoint_mode="periodic", checkpoint_period="01:02:03")._period_s == 3723
    assert BasicMemoizer(checkpoint_files=os.curdir).checkpoint_files == [os.curdir]
    assert not caplog.records
    assert BasicMemoizer(checkpoint_mode="manual", checkpoint_period="00:30:00").checkpoint_period == "00:30:00"
    assert "has an effect with checkpoint_mode='periodic' only" in caplog.text
