"""The futures that apps give, whoever looks after the call: the core, or the kernel."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps_helpers import echo, fail, hold, soon

from mpitask import DependencyError, Engine, File, TaskError, WorkerLost, bash_app, join_app, python_app
from mpitask.dataflow import AppFuture, Kernel, kernel_of

pytestmark = pytest.mark.usefixtures("engine")


plain = python_app(echo)
managed = python_app(echo, resources={"cores": 1})
cached = python_app(lambda x, **_: x, cache=True)
plain_fail = python_app(fail)


def managed_fail(text: str) -> Any:
    return plain_fail(text, label="managed")


KINDS = pytest.mark.parametrize("app", [plain, managed, cached], ids=["plain", "managed", "cached"])


@pytest.fixture
def full(tmp_path: Path) -> Any:
    """All workers are busy until it is called."""
    blockers = [hold(str(tmp_path / "full")) for _ in range(2)]
    for blocker in blockers:
        soon(blocker.running)

    def let_go() -> None:
        (tmp_path / "full").touch()
        for blocker in blockers:
            blocker.result(timeout=60)

    yield let_go
    let_go()


# -- what they say --


@KINDS
def test_numbers_grow(app: Any) -> None:
    numbers = [app(n + 0.5).tid for n in range(5)]
    assert numbers == sorted(set(numbers))


@KINDS
def test_a_future_that_has_ended(app: Any) -> None:
    future = app("x")
    assert future.result(timeout=60) == "x"
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert not future.cancel()
    assert future.exception(timeout=60) is None
    assert future.task_status() in ("done", "exec_done", "memo_done")
    assert f"task {future.tid}" in repr(future)
    assert future.task_status() in repr(future)
    assert future.why() == f"task {future.tid} ({app.name}) is done"
    assert list(future.outputs) == []
    assert (future.stdout, future.stderr) == (None, None)
    assert future.result() is future.result()


def test_done_at_the_moment_of_the_result() -> None:
    for n in range(50):
        for future in (managed(n), cached(("moment", n)), cached(("moment", n)), join_app(list)()):
            future.result(timeout=60)
            assert future.done()
            assert future.task_status() in ("exec_done", "memo_done")


def test_records() -> None:
    future = managed(1, label="mine")
    future.result(timeout=60)
    record = future.task_record
    assert record is not None
    assert record["id"] == future.tid
    assert record["app_fu"] is future
    assert (record["args"], record["kwargs"], record["func_name"]) == ((1,), {"label": "mine"}, "echo")
    assert (record["status"], record["try_id"], record["fail_history"]) == ("exec_done", 0, [])
    assert record["time_invoked"] <= record["time_returned"]
    assert plain(1).task_record is None


def test_depends_in_the_record() -> None:
    one, two = plain(1), managed(2)
    future = cached([one, {"k": two}])
    assert future.task_record["depends"] == [one, two]
    assert future.result(timeout=60) == [1, {"k": 2}]


@KINDS
def test_states_on_the_way(app: Any, tmp_path: Path, full: Callable[[], None]) -> None:
    value = f"way {tmp_path}"
    queued = app(value)
    waiting = app([queued])
    assert not any(future.done() or future.running() for future in (queued, waiting))
    assert queued.task_status() in ("waiting", "ready", "launched")
    assert waiting.task_status() in ("waiting", "pending", "launched")
    assert waiting.why().startswith(f"task {waiting.tid} ({app.name}) is ")
    if app is cached:
        assert f": it needs task {queued.tid} ({app.name}), which is " in waiting.why()
    if app is plain:
        soon(lambda: queued.task_status() == "ready")
        assert "waits for a worker" in queued.why()
    with pytest.raises(TimeoutError, match=rf"task {waiting.tid} \({app.name}\) has not ended within"):
        waiting.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        waiting.exception(timeout=0)
    full()
    assert waiting.result(timeout=60) == [value]


def test_running(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    for future in (hold(gate), python_app(hold.__wrapped__, cache=True)(gate)):
        soon(future.running)
        assert not future.cancel()
        assert not future.cancelled()
    (tmp_path / "gate").touch()
    assert future.result(timeout=60) is None


@KINDS
def test_callbacks_and_waiting(app: Any) -> None:
    called = threading.Event()
    future = app("callback")
    future.add_done_callback(lambda f: called.set())
    assert called.wait(60)
    futures = [app(n) for n in range(10)]
    assert {f.result() for f in concurrent.futures.as_completed(futures, timeout=60)} == set(range(10))
    assert not concurrent.futures.wait([*futures, app(3)], timeout=60).not_done


def test_await() -> None:
    async def main() -> Any:
        values = await asyncio.gather(*(asyncio.wrap_future(app(n)) for n in range(5) for app in (plain, cached)))
        with pytest.raises(ValueError, match="awaited"):
            await managed_fail("awaited")
        made = bash_app(lambda outputs: f"touch {outputs[0]}")(outputs=[File("/dev/null")])
        return values, await managed("x"), await cached(2), await cached(2), await made.outputs[0]

    values, text, first, second, file = asyncio.run(main())
    assert values == [n for n in range(5) for _ in range(2)]
    assert (text, first, second, file.url) == ("x", 2, 2, "/dev/null")


# -- failures --


def test_exceptions() -> None:
    for future in (plain_fail("boom"), managed_fail("boom")):
        for _ in range(3):
            with pytest.raises(ValueError, match="boom"):
                future.result(timeout=60)
    failed = managed_fail("boom")
    error = failed.exception(timeout=60)
    assert isinstance(error, ValueError)
    assert "raise ValueError(text)" in str(error.__cause__)
    assert failed.exception() is error
    assert failed.task_status() == "failed"
    assert failed.why() == f"task {failed.tid} (fail) failed: ValueError: boom"


def test_an_exception_that_cannot_be_unpickled() -> None:
    class OddError(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__("odd")

    def odd(label: Any = None) -> None:
        raise OddError(1, 2)

    for future in (python_app(odd)(), python_app(odd)(label="x")):
        with pytest.raises(TaskError, match="OddError: odd"):
            future.result(timeout=60)
        with pytest.raises(DependencyError, match="OddError: odd"):
            plain(future).result(timeout=60)


def test_a_lost_worker_is_named_by_the_number_of_the_call() -> None:
    def die(label: Any = None) -> None:
        import os

        os._exit(4)

    for future in (python_app(die)(), python_app(die)(label="x")):
        error = future.exception(timeout=60)
        assert isinstance(error, WorkerLost)
        assert (error.task, error.exit_status) == (future.tid, 4)
        assert f"task {future.tid} (die) was lost" in str(error)


CHAINS = [
    [plain, plain],
    [managed, managed],
    [cached, cached],
    [managed, cached, join_app(lambda x: plain(x)), managed],  # noqa: PLW0108
    [plain, managed],
    [plain, cached, plain],
]


@pytest.mark.parametrize("chain", CHAINS, ids=range(len(CHAINS)))
@pytest.mark.parametrize("first", [plain_fail, managed_fail], ids=["plain", "managed"])
def test_dependency_errors(first: Any, chain: list[Any]) -> None:
    """The first failure is told of, however many calls lie between, and whoever looks after them."""
    root = first("at the root")
    futures = [root]
    for app in chain:
        futures.append(app([futures[-1]]))
    future, via = futures[-1], futures[-2]
    with pytest.raises(DependencyError) as caught:
        future.result(timeout=60)
    error = caught.value
    assert (error.task, error.task_id, error.via) == (future.tid, future.tid, via.tid)
    assert isinstance(error.__cause__, ValueError)
    assert isinstance(error.root, ValueError)
    assert "ValueError: at the root" in str(error)
    assert "DependencyError" not in str(error)
    assert future.task_status() in ("dependency_failed", "dep_fail")
    assert len(future.why().splitlines()) == 2
    assert future.why().endswith("because of ValueError: at the root")
    if error.cause != via.tid:  # a plain call knows of a managed one only that it failed
        assert error.cause == root.tid
        assert f"because task {root.tid} (fail), which it needs through task {via.tid} (" in str(error)
    assert error.dependent_exceptions_tids == [(error.root, f"task {error.cause}")]
    assert pickle.loads(pickle.dumps(error)).via == via.tid


def test_foreign_futures_that_fail() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        bad = pool.submit(lambda: 1 / 0)
        errors = [app([bad]).exception(timeout=60) for app in (plain, managed, cached)]
    assert {type(error) for error in errors} == {DependencyError}
    assert len({(error.via, error.cause) for error in errors}) == 1
    assert errors[0].via >= 0


# -- cancelling --


def test_cancelling_before_it_runs(full: Callable[[], None], engine: Engine) -> None:
    futures = [plain(1), managed(1), cached("to be cancelled"), bash_app(lambda label: "true")(label="x")]
    dependents = [app([future]) for future in futures for app in (plain, managed, cached)]
    told = [threading.Event() for _ in futures]
    for future, event in zip(futures, told, strict=True):
        future.add_done_callback(lambda _, event=event: event.set())
        assert future.cancel()
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        assert not future.running()
        assert future.task_status() == "cancelled"
        assert "cancelled" in repr(future)
        assert future.why().endswith(") was cancelled")
        assert future.why().startswith(f"task {future.tid} (")
        for ask in (future.result, future.exception):
            with pytest.raises(concurrent.futures.CancelledError):
                ask(timeout=60)
    assert all(event.wait(60) for event in told)
    for dependent in dependents:
        with pytest.raises(DependencyError, match="CancelledError"):
            dependent.result(timeout=60)
    full()
    engine.wait(timeout=60)
    assert not kernel_of(engine).states.tasks


def test_cancelling_while_it_waits_for_arguments(tmp_path: Path, engine: Engine) -> None:
    source = hold(str(tmp_path / "gate"), 5)
    waiting = [app([source]) for app in (plain, managed, cached, join_app(lambda x: plain(x)))]  # noqa: PLW0108
    for future in waiting:
        assert future.cancel()
        assert future.task_status() == "cancelled"
    (tmp_path / "gate").touch()
    assert source.result(timeout=60) == 5
    assert cached([source]).result(timeout=60) == [5]
    engine.wait(timeout=60)
    assert all(future.cancelled() for future in waiting)
    assert not kernel_of(engine).states.tasks


def test_cancelling_a_call_of_another_kernel(tmp_path: Path, engine: Engine) -> None:
    """An engine may have several: each looks after its own calls."""
    kernel = Kernel(engine)
    future = kernel.submit(abs, (hold(str(tmp_path / "gate"), -1),), {}, cache=True)
    assert future.cancel()
    assert kernel.states.counts == {"pending": 0, "cancelled": 1}
    (tmp_path / "gate").touch()
    kernel.close()


def test_cancelling_one_of_two_identical_calls(full: Callable[[], None]) -> None:
    first, second = cached("identical"), cached("identical")
    assert second.cancel()
    full()
    assert first.result(timeout=60) == "identical"
    assert second.cancelled()


# -- pickling, lifting --


@KINDS
def test_futures_are_no_results(app: Any) -> None:
    with pytest.raises(TypeError, match="only as an argument of a task"):
        pickle.dumps(app(1))
    with pytest.raises(TypeError, match="only as an argument of a task"):
        pickle.dumps([app(1, outputs=[File("x")]).outputs[0]])


def test_a_join_whose_value_holds_a_future() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        inner: Any = concurrent.futures.Future()
        joined = join_app(lambda: pool.submit(lambda: inner))()
        assert joined.result(timeout=60) is inner
        with pytest.raises(DependencyError):
            plain([joined]).result(timeout=60)


@KINDS
def test_items_and_attributes(app: Any) -> None:
    future = app({"a": [1, 2j]})
    assert future["a"].result(timeout=60) == [1, 2j]
    assert future["a"][1].imag.result(timeout=60) == 2.0
    assert plain([future["a"][0]]).result(timeout=60) == [1]
    assert isinstance(future["none"].exception(timeout=60), KeyError)
    assert isinstance(app(1).nothing.exception(timeout=60), AttributeError)
    with pytest.raises(TypeError):
        iter(future)
    with pytest.raises(AttributeError):
        future._private  # noqa: B018


@KINDS
def test_looking_at_attributes_submits_nothing(app: Any, engine: Engine) -> None:
    future = app((1, 2))
    future.result(timeout=60)
    engine.wait(timeout=60)
    assert future.tid >= 0
    before = engine.stats()["submitted"]
    assert hasattr(future, "anything")
    assert not hasattr(future, "_anything")
    assert "not asked for yet" in repr(future[0])
    assert "not asked for yet" in repr(future.real)
    assert engine.stats()["submitted"] == before


# -- memory --


def test_nothing_is_kept_of_calls_that_have_ended(engine: Engine) -> None:
    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    future = join_app(lambda x: [])(big)
    assert future.result(timeout=60) == []
    lost = weakref.ref(future)
    assert isinstance(future, AppFuture)
    del big, future
    engine.wait(timeout=60)

    def collected() -> bool:
        gc.collect()
        return gone() is None and lost() is None

    soon(collected)
    assert not kernel_of(engine).states.tasks


def test_a_long_chain_of_managed_calls() -> None:
    future = managed(0)
    for _ in range(500):
        future = managed([future], label="link")[0]
    assert future.result(timeout=60) == 0
