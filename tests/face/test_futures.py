"""Futures and apps on a local engine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import gc
import os
import pickle
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpitask
from mpitask import DependencyError, Engine, SerializationError, WorkerLost, join_app, python_app


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with mpitask.load(workers=2) as engine:
        yield engine


pytestmark = pytest.mark.usefixtures("engine")


@python_app
def echo(x: Any = None, **kwargs: Any) -> Any:
    return (x, kwargs) if kwargs else x


@python_app
def add(a: Any, b: Any) -> Any:
    return a + b


@python_app
def fail(text: str) -> None:
    raise ValueError(text)


@python_app
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@python_app
def exit_hard(status: int) -> None:
    os._exit(status)


@python_app
def kill_self(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


class OddError(Exception):
    """Cannot be unpickled: its arguments are lost."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("odd")
        self.a, self.b = a, b


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -1, 2**63, 2**200, 1.5, float("inf"), 1j, "", "text \u20ac \ud800", b"", b"\0" * 100_000, ()),
        *([1, [2]], {"a": {1, 2}}, range(3), np.arange(10), np.zeros((300, 300)), slice(1, 2), ..., int),
        functools.partial(int, "7"),
    ],
    ids=lambda v: repr(v)[:20],
)
def test_values_travel(value: Any) -> None:
    got = echo(value).result(timeout=60)
    assert type(got) is type(value)
    if isinstance(value, np.ndarray):
        assert (got == value).all()
        assert got.flags.writeable
    elif isinstance(value, functools.partial):
        assert got() == 7
    else:
        assert got == value


def test_bool_and_int_keep_their_types_in_keywords() -> None:
    assert echo(True, a=1, b=1.0).result() == (True, {"a": 1, "b": 1.0})


def test_result_is_one_object() -> None:
    future = echo([1])
    assert future.result() is future.result()


def test_subclasses_of_scalars_are_kept() -> None:
    class Name(str):
        pass

    got = echo(Name("x")).result(timeout=60)
    assert type(got).__name__ == "Name"
    assert echo(np.float64(1.5)).result().dtype == np.float64
    assert echo(signal.SIGINT).result() is signal.SIGINT


def test_lambdas_closures_and_local_classes() -> None:
    factor = 3

    @dataclasses.dataclass
    class Local:
        x: int

    times = python_app(lambda v: v * factor)
    wrap = python_app(Local)
    assert times(5).result() == 15
    assert wrap(5).result() == Local(5)
    assert isinstance(wrap(5).result(), Local)


def test_methods_can_be_apps() -> None:
    class Thing:
        def __init__(self, base: int) -> None:
            self.base = base

        @python_app
        def plus(self, x: int) -> int:
            return self.base + x

    assert Thing(4).plus(3).result() == 7


@dataclasses.dataclass
class Box:
    inside: Any


def test_futures_at_any_depth() -> None:
    one = echo(1)
    nested = {"a": [one, (echo(2), Box(echo(3)))], "b": one}
    got = echo(nested).result(timeout=60)
    assert got == {"a": [1, (2, Box(3))], "b": 1}


def test_the_same_future_twice_is_one_value() -> None:
    shared = echo([0])
    first, second = echo([shared, shared]).result()
    assert first is second


def test_foreign_futures_are_dependencies() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: time.sleep(0.05) or 20)
        bad = pool.submit(lambda: 1 / 0)
        assert add(slow, [slow][0]).result(timeout=60) == 40
        with pytest.raises(DependencyError, match="ZeroDivisionError") as caught:
            echo([bad]).result(timeout=60)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    never: concurrent.futures.Future[int] = concurrent.futures.Future()
    waits = echo(never)
    assert waits.task_status() in ("waiting",)
    never.cancel()
    never.set_running_or_notify_cancel()
    with pytest.raises((DependencyError, concurrent.futures.CancelledError)):
        waits.result(timeout=60)


def test_exceptions_carry_type_and_remote_traceback() -> None:
    with pytest.raises(ValueError, match="boom") as caught:
        fail("boom").result()
    assert "raise ValueError(text)" in str(caught.value.__cause__)
    assert "runner.py" not in str(caught.value.__cause__)
    assert isinstance(fail("x").exception(), ValueError)
    assert echo(1).exception() is None


def test_exceptions_that_do_not_pickle_are_quoted() -> None:
    @python_app
    def odd() -> None:
        raise OddError(1, 2)

    @python_app
    def handle() -> None:
        error = RuntimeError("holds a lock")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    for app, text in ((odd, "OddError: odd"), (handle, "RuntimeError: holds a lock")):
        with pytest.raises(mpitask.TaskError, match=text):
            app().result(timeout=60)


class OfTheUser(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (SystemExit(0), "SystemExit", 0),
        (SystemExit("in words"), "SystemExit", "in words"),
        (KeyboardInterrupt(), "KeyboardInterrupt", None),
        (GeneratorExit(), "GeneratorExit", None),
        (asyncio.CancelledError(), "CancelledError", None),
        (OfTheUser("mine"), "OfTheUser", None),
        (BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError()]), "BaseExceptionGroup", None),
    ],
)
def test_what_would_end_a_program_is_the_end_of_the_task_only(error: BaseException, kind: str, code: object) -> None:
    @python_app
    def leave(x: object) -> None:
        raise error

    with pytest.raises(mpitask.TaskExit) as caught:
        leave(1).result(timeout=60)
    assert (caught.value.kind, caught.value.code) == (kind, code)
    with pytest.raises(mpitask.TaskExit) as caught:
        mpitask.map(leave, range(3)).result(timeout=60)
    assert caught.value.__notes__ == ["(item 0 of the map)"]

    @join_app
    def leave_here() -> Any:
        raise error

    assert isinstance(leave_here().exception(timeout=60), mpitask.TaskExit)
    assert echo(1).result(timeout=60) == 1


def test_a_result_that_exits_while_it_is_unpickled() -> None:
    class Exits:
        def __reduce__(self) -> Any:
            return sys.exit, (0,)

    @python_app
    def give() -> Any:
        return Exits()

    with pytest.raises(mpitask.SerializationError, match="SystemExit"):
        give().result(timeout=60)


def test_a_cancelled_error_that_the_function_raised_is_a_failure() -> None:
    @python_app
    def give_up() -> None:
        raise concurrent.futures.CancelledError("mine")

    future = give_up()
    assert isinstance(future.exception(timeout=60), concurrent.futures.CancelledError)
    assert not future.cancelled()


def test_callbacks_of_a_cancelled_future_have_run_when_cancel_returns() -> None:
    gate: concurrent.futures.Future[int] = concurrent.futures.Future()
    called: list[Any] = []
    future = echo(gate)
    future.add_done_callback(called.append)
    assert future.cancel()
    assert called == [future]
    gate.set_result(1)


def test_callbacks_that_exit_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gate: concurrent.futures.Future[int] = concurrent.futures.Future()
    called = threading.Event()
    future = echo(gate)
    future.add_done_callback(lambda _: sys.exit(0))
    future.add_done_callback(lambda _: called.set())
    gate.set_result(1)
    assert called.wait(60)
    assert "a done-callback of" in caplog.text


def test_dependency_errors_name_the_root_cause() -> None:
    root = fail("at the root")
    middle = echo(root)
    last = add(middle, 1)
    with pytest.raises(DependencyError) as caught:
        last.result(timeout=60)
    error = caught.value
    assert (error.task, error.via, error.cause) == (last.tid, middle.tid, root.tid)
    assert isinstance(error.__cause__, ValueError)
    assert "ValueError: at the root" in str(error)
    assert last.task_status() == "dependency_failed"
    assert pickle.loads(pickle.dumps(error)).cause == root.tid


@pytest.mark.parametrize("way", ["exit", "SIGSEGV", "SIGKILL"])
def test_a_dying_worker_costs_its_own_task_only(way: str) -> None:
    others = [nap(0.01) for _ in range(20)]
    doomed = exit_hard(3) if way == "exit" else kill_self(signal.Signals[way])
    more = [echo(i) for i in range(20)]
    started = time.monotonic()
    with pytest.raises(WorkerLost) as caught:
        doomed.result(timeout=60)
    assert time.monotonic() - started < 30  # a few milliseconds, on a machine that is not busy
    assert caught.value.task == doomed.tid
    assert caught.value.host
    assert caught.value.exit_status == (3 if way == "exit" else None)
    assert caught.value.signal == (None if way == "exit" else signal.Signals[way])
    assert (way if way != "exit" else "status 3") in str(caught.value)
    assert [f.result(timeout=60) for f in others] == [0.01] * 20
    assert [f.result(timeout=60) for f in more] == list(range(20))


def test_retries() -> None:
    path = Path(f"/dev/shm/mpitask-test-retries-{os.getpid()}")

    @python_app(retries=2)
    def third_time(how: str) -> int:
        with path.open("a") as file:
            file.write("x")
        count = path.stat().st_size
        if count < 3:
            if how == "raise":
                raise OSError(count)
            os._exit(1)
        return count

    for how in ("raise", "die"):
        try:
            assert third_time(how).result(timeout=60) == 3
        finally:
            path.unlink()
    with pytest.raises(ValueError, match="always"):
        python_app(retries=2)(fail.__wrapped__)("always").result(timeout=60)


@python_app
def hold(gate: str) -> str:
    """Keeps its worker until the gate exists."""
    while not os.path.exists(gate):  # noqa: PTH110
        time.sleep(0.005)
    return gate


def test_priority(tmp_path: Path) -> None:
    blockers = [hold(str(tmp_path / "gate")) for _ in range(2)]
    order: list[str] = []
    low = python_app(lambda: time.sleep(0.02), priority=-1)
    high = python_app(lambda: time.sleep(0.02), priority=5)
    futures = [low() for _ in range(4)] + [high() for _ in range(4)]
    for i, future in enumerate(futures):
        future.add_done_callback(lambda _, name="low" if i < 4 else "high": order.append(name))
    (tmp_path / "gate").touch()
    concurrent.futures.wait(futures + blockers, timeout=60)
    assert sorted(order[:4]) == ["high"] * 4 or order.index("low") >= 3


def test_timeout_and_state(tmp_path: Path) -> None:
    future = hold(str(tmp_path / "gate"))
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.05 s"):
        future.result(timeout=0.05)
    assert not future.done()
    assert "Future of task" in repr(future)
    (tmp_path / "gate").touch()
    assert future.result(timeout=60) == str(tmp_path / "gate")
    assert future.done()
    assert not future.cancel()


def test_cancel(tmp_path: Path) -> None:
    blockers = [hold(str(tmp_path / "gate")) for _ in range(2)]
    queued = [nap(5) for _ in range(10)]
    dependent = echo(queued[-1])
    done: list[bool] = []
    queued[-1].add_done_callback(lambda f: done.append(f.cancelled()))
    assert all(f.cancel() for f in queued)
    assert queued[0].cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        queued[0].result(timeout=60)
    with pytest.raises(DependencyError, match="CancelledError"):
        dependent.result(timeout=60)
    (tmp_path / "gate").touch()
    assert [f.result(timeout=60) for f in blockers] == [str(tmp_path / "gate")] * 2
    deadline = time.monotonic() + 60
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done == [True]


def test_wait_and_as_completed() -> None:
    futures = [nap(0.02 * i) for i in range(5)] + [fail("x"), echo(0)]
    done, not_done = concurrent.futures.wait(futures, timeout=60)
    assert (len(done), not not_done) == (7, True)
    first, rest = concurrent.futures.wait([nap(0.3), echo(1)], return_when="FIRST_COMPLETED", timeout=60)
    assert len(first) == 1
    assert {f.result() for f in concurrent.futures.as_completed([echo(i) for i in range(300)], timeout=60)} == set(
        range(300)
    )
    concurrent.futures.wait(rest, timeout=60)
    raised, _ = concurrent.futures.wait([nap(0.5), fail("y")], return_when="FIRST_EXCEPTION", timeout=60)
    assert any(f.exception() for f in raised)


def test_callbacks() -> None:
    called = threading.Event()
    names: list[str] = []

    def note(future: Any) -> None:
        names.append(threading.current_thread().name)
        called.set()

    future = nap(0.05)
    future.add_done_callback(lambda _: 1 / 0)  # logged, harms nobody
    future.add_done_callback(note)
    assert called.wait(60)
    future.add_done_callback(note)  # at once, here
    assert names == ["mpitask-notifier", "MainThread"]


def test_asyncio() -> None:
    async def main() -> tuple[Any, Any]:
        awaited = await add(echo(1), 2)
        wrapped = await asyncio.gather(*(asyncio.wrap_future(echo(i)) for i in range(50)))
        with pytest.raises(ValueError, match="async"):
            await fail("async")
        return awaited, wrapped

    assert asyncio.run(main()) == (3, list(range(50)))


def test_many_threads_submit() -> None:
    def work(base: int) -> int:
        return sum(f.result() for f in [echo(base + i) for i in range(500)])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(work, range(0, 8000, 1000)))
    assert got == [sum(range(base, base + 500)) for base in range(0, 8000, 1000)]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(SerializationError, match=r"argument 'lock' .* cannot be pickled"):
        echo(1, lock=threading.Lock())
    with pytest.raises(SerializationError, match="argument 0"):
        echo([threading.Lock()])
    assert echo(2).result() == 2


def test_a_result_that_cannot_be_pickled() -> None:
    with pytest.raises(
        SerializationError, match=r"the result of .*lock.* \(lock\) cannot be pickled: TypeError: cannot"
    ):
        python_app(threading.Lock)().result(timeout=60)
    with pytest.raises((TypeError, SerializationError), match=r"pickle|future"):
        python_app(concurrent.futures.Future)().result(timeout=60)

    def nested() -> Any:
        return {"a": 1, "b": [0, (threading.Lock(),)]}

    wanted = r"the result of .*nested \(dict, at \['b'\]: list, at \[1\]: tuple, at \[0\]: lock\) cannot be pickled"
    with pytest.raises(SerializationError, match=wanted):
        python_app(nested)().result(timeout=60)


class Unreadable:
    def __reduce__(self) -> Any:
        return _refuse_here, (os.getpid(),)


def _refuse_here(pid: int) -> Any:
    raise LookupError(f"made by {pid}")


def test_a_result_that_cannot_be_unpickled() -> None:
    future = python_app(Unreadable)()
    whose = rf"the result of task {future.tid} \(Unreadable\)"
    wanted = whose + r" cannot be unpickled here: LookupError: made by \d+; it needs .*_refuse_here"
    with pytest.raises(SerializationError, match=wanted) as caught:
        future.result(timeout=60)
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_future_does_not_pickle_alone() -> None:
    with pytest.raises(TypeError, match="only as an argument of a task"):
        pickle.dumps(echo(1))


def test_dropped_futures_free_their_tasks(engine: Engine) -> None:
    future = echo(1)
    gone = weakref.ref(future)
    future.result()
    del future
    gc.collect()
    assert gone() is None
    for _ in range(1000):
        echo(b"x" * 1000)
    engine.wait(timeout=60)
    assert engine.unfinished == 0


def test_a_future_cannot_be_returned_from_a_task() -> None:
    with pytest.raises(SerializationError, match="a task must return a value, not a future"):
        python_app(lambda: echo(1))().result(timeout=60)


def test_an_exception_that_a_promise_is_given_keeps_its_traceback(engine: Engine) -> None:
    """Somebody else may be raising it, in another thread."""
    promise: Any = engine.promise()
    with pytest.raises(KeyError) as caught:
        {}["x"]
    frames = caught.value.__traceback__
    assert frames is not None
    promise.set_exception(caught.value)
    assert caught.value.__traceback__ is frames
    with pytest.raises(KeyError) as again:
        promise.result(timeout=60)
    assert again.value is not caught.value
    assert "test_futures.py" in str(again.value.__cause__)
