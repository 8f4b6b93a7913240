"""join_app: what it may return, how it fails, and that no depth costs a thread."""

from __future__ import annotations

import concurrent.futures
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apps_helpers import hold, soon

import mpitask
from helpers.processes import Launcher
from mpitask import DependencyError, Engine, File, JoinError, SerializationError, bash_app, join_app, python_app
from mpitask.dataflow import kernel_of

pytestmark = pytest.mark.usefixtures("engine")


@python_app
def echo(x: Any = None) -> Any:
    return x


@python_app
def add(a: Any, b: Any) -> Any:
    return a + b


@python_app
def fail(text: str) -> None:
    raise ValueError(text)


@join_app
def give(what: Callable[[], Any]) -> Any:
    """Returns what the function gives here, in this process."""
    return what()


# -- what it returns --


def test_a_future() -> None:
    future = give(lambda: echo(5))
    assert future.result(timeout=60) == 5
    assert future.task_status() == "exec_done"
    assert future.exception() is None


@pytest.mark.parametrize(
    ("what", "result"),
    [
        (lambda: [echo(1), echo(2)], [1, 2]),
        (lambda: (echo(1), echo(2)), (1, 2)),
        (lambda: {"a": echo(1), "b": add(1, echo(1))}, {"a": 1, "b": 2}),
        (list, []),
        (tuple, ()),
        (dict, {}),
        (lambda: echo([1])[0], 1),
        (lambda: give(lambda: echo(3)), 3),
        (lambda: [give(lambda: [echo(3)]), echo(4)], [[3], 4]),
    ],
    ids=["list", "tuple", "dict", "no-list", "no-tuple", "no-dict", "item", "join", "joins"],
)
def test_futures_in_containers(what: Callable[[], Any], result: Any) -> None:
    got = give(what).result(timeout=60)
    assert got == result
    assert type(got) is type(result)


def test_futures_of_other_kinds(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert give(lambda: [pool.submit(pow, 2, 3), echo(1)]).result(timeout=60) == [8, 1]
        lock = threading.Lock()  # a value that cannot be pickled stays in this process
        assert give(lambda: pool.submit(lambda: lock)).result(timeout=60) is lock
        assert give(lambda: pool.submit(lambda: lock)).exception(timeout=60) is None
    touch = bash_app(lambda outputs: f"touch {outputs[0]}")
    made = give(lambda: touch(outputs=[File(tmp_path / "made")]).outputs[0]).result(timeout=60)
    assert made.filepath == str(tmp_path / "made")


@pytest.mark.parametrize(
    "what",
    [lambda: 5, lambda: None, lambda: "text", lambda: [1], lambda: [echo(1), 2], lambda: {"a": 1}, lambda: {echo(1)}],
    ids=["int", "None", "str", "list", "mixed", "dict", "set"],
)
def test_anything_else_is_a_type_error(what: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"join_app give must return a future, or a list, tuple or dict of futures"):
        give(what).result(timeout=60)


def test_a_join_as_an_argument() -> None:
    total = give(lambda: [echo(1), echo(2)])
    assert add(total, [3]).result(timeout=60) == [1, 2, 3]
    assert add(total[1], 1).result(timeout=60) == 3


# -- its own arguments --


def test_arguments_have_values_when_it_runs() -> None:
    seen: list[Any] = []

    @join_app
    def spread(values: list[int], *, by: dict[str, Any], inputs: Any = ()) -> Any:
        seen.append((values, by, inputs))
        return [add(value, by["n"]) for value in values]

    assert spread(echo([1, 2]), by={"n": echo(10)}, inputs=[echo(1)]).result(timeout=60) == [11, 12]
    assert seen == [([1, 2], {"n": 10}, [1])]


def test_it_runs_here_and_not_in_the_caller() -> None:
    names: list[str] = []

    def note() -> Any:
        names.append(threading.current_thread().name)
        return echo(1)

    give(note).result(timeout=60)
    assert names[0].startswith("mpitask-join")


def test_an_argument_that_failed() -> None:
    called: list[int] = []
    bad = fail("no value")
    joined = join_app(lambda x: called.append(1) or echo(x))(bad)
    with pytest.raises(DependencyError, match=rf"not run because task {bad.tid} \(fail\) failed: ValueError"):
        joined.result(timeout=60)
    assert (joined.task_status(), called) == ("dep_fail", [])


# -- failures --


def test_a_future_that_fails() -> None:
    inner: list[Any] = []
    future = give(lambda: inner.append(fail("inside")) or inner[0])
    with pytest.raises(JoinError, match="ValueError: inside") as caught:
        future.result(timeout=60)
    error = caught.value
    assert isinstance(error.__cause__, ValueError)
    assert (error.task, error.task_id) == (future.tid, future.tid)
    assert [(str(cause), name) for cause, name in error.dependent_exceptions_tids] == [
        ("inside", f"task {inner[0].tid}")
    ]
    assert "raise ValueError(text)" in str(error.__cause__.__cause__)


def test_all_failures_are_told_of() -> None:
    error = give(lambda: [fail("one"), echo(1), fail("two")]).exception(timeout=60)
    assert [str(cause) for cause, _ in error.failures] == ["one", "two"]
    assert "and 1 others" in str(error)


def test_a_join_in_a_join_tells_what_failed() -> None:
    error = give(lambda: give(lambda: [fail("deep"), fail("too")])).exception(timeout=60)
    assert isinstance(error, JoinError)
    assert [str(cause) for cause, _ in error.failures] == ["deep", "too"]
    assert isinstance(error.__cause__, ValueError)
    with pytest.raises(DependencyError, match="JoinError") as caught:
        echo(give(lambda: fail("x"))).result(timeout=60)
    assert isinstance(caught.value.__cause__, JoinError)


def test_all_futures_are_waited_for_before_it_fails(tmp_path: Path) -> None:
    future = give(lambda: [fail("early"), hold(str(tmp_path / "gate"))])
    soon(lambda: future.task_status() == "joining")
    assert not future.done()
    (tmp_path / "gate").touch()
    assert isinstance(future.exception(timeout=60), JoinError)


def test_only_the_function_is_tried_again() -> None:
    tries: list[int] = []

    @join_app(retries=2)
    def third_time() -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(len(tries))
        return echo("at last")

    assert third_time().result(timeout=60) == "at last"
    assert len(tries) == 3
    tries.clear()

    @join_app(retries=2)
    def fails_inside() -> Any:
        tries.append(1)
        return fail("inside")

    assert isinstance(fails_inside().exception(timeout=60), JoinError)
    assert len(tries) == 1
    with pytest.raises(ZeroDivisionError) as caught:
        give(lambda: 1 / 0).result(timeout=60)
    assert caught.traceback[-1].path.name == "test_join.py"


def test_an_exception_that_cannot_be_pickled() -> None:
    class LockedError(Exception):
        def __init__(self) -> None:
            super().__init__("locked")
            self.lock = threading.Lock()

    def raises() -> Any:
        raise LockedError

    future = give(raises)
    assert isinstance(future.exception(timeout=60), LockedError)
    with pytest.raises(DependencyError, match="locked"):
        echo(future).result(timeout=60)


# -- depth, width, threads --


@join_app
def countdown(n: int) -> Any:
    return countdown(n - 1) if n else echo("bottom")


@join_app
def countdown_to_failure(n: int) -> Any:
    return countdown_to_failure(n - 1) if n else fail("bottom")


@join_app
def fibonacci(n: int) -> Any:
    return add(fibonacci(n - 1), fibonacci(n - 2)) if n > 1 else echo(n)


def own_threads() -> int:
    return sum(thread.name.startswith("mpitask") for thread in threading.enumerate())


def test_depth() -> None:
    assert countdown(1000).result(timeout=60) == "bottom"
    assert own_threads() <= 4 + 10 + 1


def test_depth_of_failures() -> None:
    error = countdown_to_failure(300).exception(timeout=60)
    assert isinstance(error, JoinError)
    assert isinstance(error.__cause__, ValueError)
    assert len(str(error)) < 200


@pytest.mark.long
def test_great_depth() -> None:
    assert countdown(10_000).result(timeout=250) == "bottom"
    assert isinstance(countdown_to_failure(2_000).exception(timeout=250), JoinError)


def test_fibonacci() -> None:
    assert fibonacci(10).result(timeout=60) == 55


def test_bodies_that_wait_do_not_stop_the_rest(tmp_path: Path) -> None:
    """Ten bodies hold all threads of joins; the calls that they wait for, which are looked after too, still end."""
    cached = python_app(lambda x: x, cache=True)
    barrier = threading.Barrier(10)

    def waits(n: int) -> Any:
        barrier.wait(60)
        return echo(cached(n).result(timeout=60))

    futures = [give(lambda n=n: waits(n)) for n in range(10)]
    more = give(lambda: echo("after them"))
    assert [future.result(timeout=60) for future in futures] == list(range(10))
    assert more.result(timeout=60) == "after them"


def test_many_at_once() -> None:
    futures = [give(lambda n=n: [echo(n), echo(-n)]) for n in range(200)]
    assert [future.result(timeout=60) for future in futures] == [[n, -n] for n in range(200)]
    assert own_threads() <= 4 + 10 + 1


# -- cancelling, memory of calls, ends --


def test_cancelling(tmp_path: Path, engine: Engine) -> None:
    gate = str(tmp_path / "gate")
    inner: list[Any] = []

    @join_app
    def waits() -> Any:
        inner.append(hold(gate, "inner"))
        return inner

    before_it_runs = join_app(lambda x: [echo(x)])(hold(gate))
    joining = waits()
    soon(lambda: joining.task_status() == "joining")
    dependent = echo(joining)
    for future in (before_it_runs, joining):
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        assert future.task_status() == "cancelled"
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(timeout=60)
    with pytest.raises(DependencyError, match="CancelledError"):
        dependent.result(timeout=60)
    (tmp_path / "gate").touch()
    assert inner[0].result(timeout=60) == "inner"  # it may be somebody else's as well
    done = give(list)
    assert done.result(timeout=60) == []
    assert not done.cancel()
    engine.wait(timeout=60)
    assert not kernel_of(engine).states.tasks


def test_joins_are_remembered(tmp_path: Path) -> None:
    bodies: list[int] = []

    @join_app(cache=True, cache_key="name")
    def double(n: int) -> Any:
        bodies.append(n)
        return [echo(n), echo(n)]

    assert double(1).result(timeout=60) == [1, 1]
    again = double(1)
    assert again.result(timeout=60) == [1, 1]
    assert (bodies, again.task_status()) == ([1], "memo_done")


SCRIPT = """
import time
from mpitask import join_app

@join_app
def busy():
    print("busy", flush=True)
    time.sleep(60)

busy()
while True:
    time.sleep(0.1)  # one long sleep would miss a signal that comes just before it
"""


@pytest.mark.parametrize("plain", [False, True])
def test_a_busy_join_does_not_keep_an_interrupted_script(launcher: Launcher, plain: bool) -> None:
    script = f"import mpitask\nmpitask.load(workers=1)\n{SCRIPT}" if plain else SCRIPT
    running = launcher.start(script, plain=plain, options=[] if plain else ["--workers", "1"])
    running.wait_for_output("busy")
    running.signal(signal.SIGINT)
    assert running.finish(50).rc != 0


@pytest.fixture
def other_engine(make_engine: Callable[..., Engine]) -> Iterator[Engine]:
    return make_engine()


def test_futures_of_another_engine(other_engine: Engine) -> None:
    theirs = python_app(lambda x: x, data_flow_kernel=other_engine)
    assert give(lambda: theirs(5)).result(timeout=60) == 5
    assert give(lambda: [theirs(5), echo(6)]).result(timeout=60) == [5, 6]
    assert mpitask.current() is not other_engine


def test_an_engine_that_ends_at_once_ends_its_joins(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make_engine()
    held = python_app(hold.__wrapped__, data_flow_kernel=engine)
    future = join_app(lambda: held(str(tmp_path / "never")), data_flow_kernel=engine)()
    soon(lambda: future.task_status() == "joining")
    assert engine.close(drop=True)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(timeout=60)


@pytest.mark.parametrize("way", ["returns", "waits", "passes on", "in a list"])
def test_a_join_that_waits_for_itself_is_refused(way: str) -> None:
    own: list[Any] = []
    given = threading.Event()

    @join_app
    def joins() -> Any:
        assert given.wait(60)
        if way == "waits":
            own[0].result()
        if way == "passes on":
            return echo(own[0])
        return own if way == "in a list" else own[0]

    own.append(joins())
    given.set()
    with pytest.raises((RuntimeError, SerializationError), match="join_app joins would wait for itself"):
        own[0].result(timeout=60)
