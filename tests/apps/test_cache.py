"""Memoised calls: which are the same, what is remembered, and what a hit costs."""

from __future__ import annotations

import concurrent.futures
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apps_helpers import Counted, hold, soon

from mpitask import (
    BashExitFailure,
    ConfigurationError,
    DependencyError,
    Engine,
    File,
    WorkerLost,
    bash_app,
    python_app,
)
from mpitask.dataflow import kernel_of
from mpitask.memo import Memoizer

pytestmark = pytest.mark.usefixtures("engine")


@python_app
def echo(x: Any = None) -> Any:
    return x


# -- hits --


def test_a_hit_is_there_at_once(tmp_path: Path) -> None:
    square = Counted(tmp_path / "runs", lambda x: x * x)
    assert square(3).result(timeout=60) == 9
    again = square(3)
    assert again.done()
    assert again.result(timeout=0) == 9
    assert (again.exception(timeout=0), again.cancelled(), again.running(), again.cancel()) == (
        None,
        False,
        False,
        False,
    )
    assert (square.runs, again.task_status()) == (1, "memo_done")
    assert square(4).result(timeout=60) == 16
    assert square.runs == 2


def test_a_hit_is_a_future_like_any_other(tmp_path: Path, engine: Engine) -> None:
    app = Counted(tmp_path / "runs", lambda x: {"a": [x]})
    first = app(3)
    first.result(timeout=60)
    hits = [app(3) for _ in range(7)]
    assert "memo_done" in repr(hits[0])
    called: list[Any] = []
    hits[0].add_done_callback(called.append)
    assert called == [hits[0]]
    assert set(concurrent.futures.wait(hits[1:3], timeout=60).done) == set(hits[1:3])
    assert [f.result() for f in concurrent.futures.as_completed([hits[2], hits[3]], timeout=60)] == [{"a": [3]}] * 2
    assert echo(hits[4]).result(timeout=60) == {"a": [3]}
    assert echo([hits[4], hits[0]]).result(timeout=60) == [{"a": [3]}] * 2
    assert hits[4]["a"].result(timeout=60) == [3]
    record = hits[5].task_record
    assert (record["status"], record["from_memo"], record["args"], record["id"]) == (
        "memo_done",
        True,
        (3,),
        hits[5].tid,
    )
    assert record["hashsum"] == first.task_record["hashsum"]
    assert hits[5].tid > first.tid
    assert (hits[6].outputs, hits[6].stdout) == ([], None)
    assert "done" in hits[6].why()
    engine.wait(timeout=60)
    assert app.runs == 1


def test_results_do_not_share_their_parts(tmp_path: Path) -> None:
    app = Counted(tmp_path / "runs", lambda: {"a": [1]})
    for _ in range(3):
        future = app()
        future.result(timeout=60)["a"].append(2)
        assert future.result() == {"a": [1, 2]}
    assert app.runs == 1


def test_calls_in_flight_are_one(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    app = Counted(tmp_path / "runs", hold.__wrapped__)
    futures = [app(gate, [1]) for _ in range(5)]
    assert not any(future.done() for future in futures)
    (tmp_path / "gate").touch()
    assert [future.result(timeout=60) for future in futures] == [[1]] * 5
    assert app.runs == 1
    assert sorted(future.task_status() for future in futures) == ["exec_done"] + ["memo_done"] * 4
    assert futures[1].result() is not futures[2].result()


def test_calls_from_many_threads_are_one(tmp_path: Path) -> None:
    app = Counted(tmp_path / "runs", lambda x: x)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: app(n % 5).result(timeout=60), range(200)))
    assert got == [n % 5 for n in range(200)]
    assert app.runs == 5


def test_arguments_of_all_kinds(tmp_path: Path) -> None:
    app = Counted(tmp_path / "runs", lambda *args, **kwargs: len(args) + len(kwargs))
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (([1, 2],), {}),
        (((1, 2),), {}),
        ((1,), {}),
        ((True,), {}),
        ((1.0,), {}),
        ((b"1",), {}),
        ((), {"a": 1, "b": 2}),
        ((np.arange(5),), {}),
        ((np.arange(6),), {}),
        (({1, 2},), {}),
        ((None,), {}),
    ]
    for _ in range(2):
        for args, kwargs in calls:
            app(*args, **kwargs).result(timeout=60)
    assert app.runs == len(calls)
    app(b=2, a=1).result(timeout=60)
    assert app.runs == len(calls)


def test_positions_keywords_and_defaults_are_one(tmp_path: Path) -> None:
    count = tmp_path / "runs"

    @python_app(cache=True)
    def add(a: int, b: int = 2) -> int:
        with count.open("a") as file:
            file.write("x")
        return a + b

    assert [add(1).result(timeout=60), add(1, 2).result(timeout=60), add(b=2, a=1).result(timeout=60)] == [3] * 3
    assert count.read_text() == "x"


@pytest.mark.parametrize("nested", [False, True])
def test_futures_as_arguments(tmp_path: Path, nested: bool) -> None:
    app = Counted(tmp_path / "runs", lambda x: x)
    wrap = (lambda x: [x]) if nested else (lambda x: x)
    assert app(wrap(echo(5))).result(timeout=60) == wrap(5)
    assert app(wrap(5)).result(timeout=60) == wrap(5)
    assert app(wrap(echo(5))).result(timeout=60) == wrap(5)
    assert app.runs == 1


def test_ignored_arguments() -> None:
    """By position, by keyword, by default; also one that was not given at all."""

    @python_app(cache=True, ignore_for_cache=["y", "unknown"])
    def runs_on(x: int, y: Any = 0, *, z: int = 0) -> Any:
        return time.monotonic_ns()

    first = runs_on(1).result(timeout=60)
    calls = [runs_on(1, 5), runs_on(1, y=6), runs_on(x=1, y=[7]), runs_on(1, echo(8)), runs_on(1, z=0)]
    assert [call.result(timeout=60) for call in calls] == [first] * 5
    assert runs_on(2).result(timeout=60) != first
    assert runs_on(1, z=1).result(timeout=60) != first


def test_streams_and_outputs_count_by_name(tmp_path: Path) -> None:
    app = bash_app(lambda word, stdout, outputs: f"echo {word}; touch {outputs[0]}", cache=True)

    def call(out: str, made: str) -> Any:
        return app("x", stdout=str(tmp_path / out), outputs=[File(tmp_path / made)])

    first = call("a", "b")
    assert first.result(timeout=60) == 0
    second = call("a", "b")
    assert (second.result(timeout=60), second.task_status()) == (0, "memo_done")
    assert second.outputs[0].result(timeout=60).filepath == str(tmp_path / "b")
    assert second.stdout == str(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "x\n"
    assert call("c", "b").result(timeout=60) == 0
    assert (tmp_path / "c").exists()


def test_automatic_streams_do_not_count() -> None:
    app = bash_app(lambda word, stdout: f"echo {word}", cache=True)
    first, second = app("x", stdout=-1), None
    assert first.result(timeout=60) == 0
    second = app("x", stdout=-1)
    assert (second.result(timeout=60), second.task_status()) == (0, "memo_done")


def test_input_files_count_by_content(tmp_path: Path) -> None:
    app = Counted(tmp_path / "runs", lambda file: open(file).read())  # noqa: PTH123, SIM115
    (tmp_path / "in").write_text("one")
    assert [app(File(tmp_path / "in")).result(timeout=60) for _ in range(2)] == ["one"] * 2
    (tmp_path / "in").write_text("another")
    assert app(File(tmp_path / "in")).result(timeout=60) == "another"
    assert app.runs == 2


def test_the_same_call_without_a_cache_runs(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(inline=True, app_cache=False)
    app = python_app(time.monotonic_ns, cache=True, data_flow_kernel=engine)
    assert app().result(timeout=60) != app().result(timeout=60)
    assert app().task_status() != "memo_done"


def test_hits_after_the_engine_has_ended(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(inline=True)
    app = python_app(lambda: [1], cache=True, data_flow_kernel=engine)
    app().result(timeout=60)
    hit = app()
    engine.close()
    assert hit.result() == [1]
    assert concurrent.futures.wait([hit], timeout=60).not_done == set()
    assert "memo_done" in repr(hit)
    with pytest.raises(Exception, match="this engine has ended"):
        app()


# -- what the function is --


def test_functions_of_one_factory_are_different() -> None:
    def scale_by(factor: int) -> Any:
        return python_app(lambda x: factor * x, cache=True)

    assert [scale_by(factor)(7).result(timeout=60) for factor in (2, 3, 2)] == [14, 21, 14]


def test_what_the_script_redefines_is_seen(engine: Engine) -> None:
    """By the cache, and by the workers that run the call."""
    names: dict[str, Any] = {"__name__": "__main__", "python_app": python_app, "factor": 2, "items": [1]}
    exec(
        "def g(x): return factor * x\n"
        "@python_app(cache=True)\ndef f(x): return g(x) + sum(items)\n"
        "@python_app\ndef late(x): return x\n",
        names,
    )
    assert names["f"](5).result(timeout=60) == 11
    names["factor"] = 3
    assert names["f"](5).result(timeout=60) == 16
    names["items"].append(100)
    assert names["f"](5).result(timeout=60) == 116
    exec("def g(x): return -x", names)
    assert names["f"](5).result(timeout=60) == 96
    exec("def g(x): return factor * x", names)
    names["items"].pop()
    again = names["f"](5)
    assert (again.result(timeout=60), again.task_status()) == (16, "memo_done")


def test_a_call_is_of_the_function_as_it_was_when_it_was_made(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "factor": 2}
    exec("def f(x): return factor * x", names)
    app = python_app(names["f"], cache=True)
    gate = str(tmp_path / "gate")
    early = app(hold(gate, 5))
    names["factor"] = 3
    late = app(hold(gate, 5))
    (tmp_path / "gate").touch()
    assert [early.result(timeout=60), late.result(timeout=60)] == [10, 15]
    assert app(5).result(timeout=60) == 15
    names["factor"] = 2
    assert app(5).result(timeout=60) == 10


def test_a_function_that_cannot_be_identified_runs_without_a_cache(
    make_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "lock": threading.Lock(), "runs": []}
    exec("def f(x):\n with lock:\n  runs.append(x)\n  return x", names)
    app = python_app(names["f"], cache=True, data_flow_kernel=make_engine(inline=True))
    futures = [app(1) for _ in range(2)]
    for future in futures:
        future.exception(timeout=60)  # the lock cannot be sent either; an engine may come that can
    assert [future.task_status() for future in futures].count("memo_done") == 0
    assert caplog.text.count("__main__.f are run and not remembered") == 1
    assert "the global 'lock', which __main__.f reads" in caplog.text


def test_a_shared_object_counts_as_what_it_is(engine: Engine) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "table": engine.share(np.arange(1000))}
    exec("def f(x): return int(table[x])", names)
    app = python_app(names["f"], cache=True)
    assert [app(5).result(timeout=60), app(5).result(timeout=60)] == [5, 5]
    assert app(5).task_status() == "memo_done"
    names["table"] = engine.share(np.arange(1000) * 2)
    assert app(5).result(timeout=60) == 10
    names["table"] = engine.share(np.arange(1000))
    assert app(5).task_status() == "memo_done"


def test_a_name_may_be_enough() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "factor": 2}
    exec("def f(x): return factor * x", names)
    app = python_app(names["f"], cache=True, cache_key="name")
    assert app(5).result(timeout=60) == 10
    names["factor"] = 3
    assert app(5).result(timeout=60) == 10
    with pytest.raises(ConfigurationError, match="give 'content' or 'name'"):
        python_app(cache_key="both")


# -- failures --


def test_a_call_that_has_failed_is_run_when_it_is_made_again(tmp_path: Path) -> None:
    app = Counted(tmp_path / "runs", lambda x: 1 // x, retries=1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            app(0).result(timeout=60)
    assert app.runs == 4  # two calls, each tried twice
    futures = [app(0) for _ in range(2)]
    assert [type(future.exception(timeout=60)) for future in futures] == [ZeroDivisionError] * 2


@pytest.mark.parametrize("of_app", [False, True])
def test_exceptions_are_remembered_where_that_is_wanted(
    tmp_path: Path, make_engine: Callable[..., Engine], of_app: bool
) -> None:
    engine = make_engine(inline=True, cache_failures=not of_app)
    options: dict[str, Any] = {"cache_failures": True} if of_app else {}
    app = Counted(tmp_path / "runs", lambda x: 1 // x, retries=1, data_flow_kernel=engine, **options)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            app(0).result(timeout=60)
    assert app.runs == 2  # one call, tried twice
    false = bash_app(lambda: "exit 3", cache=True, data_flow_kernel=engine, **options)
    assert [false().exception(timeout=60).exitcode for _ in range(2)] == [3, 3]
    assert isinstance(false().exception(timeout=60), BashExitFailure)


def test_a_lost_worker_is_not_remembered(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")

    def dies_once() -> str:
        if not os.path.exists(mark):  # noqa: PTH110
            os.close(os.open(mark, os.O_CREAT))
            os._exit(1)
        return "alive"

    app = python_app(dies_once, cache=True)
    first = app()
    assert isinstance(first.exception(timeout=60), WorkerLost)
    assert first.exception().task == first.tid
    assert app().result(timeout=60) == "alive"


def test_a_failed_dependency_is_not_remembered(tmp_path: Path) -> None:
    app = Counted(tmp_path / "runs", lambda x: x)
    bad = python_app(lambda: 1 / 0)()
    for _ in range(2):
        with pytest.raises(DependencyError, match="ZeroDivisionError"):
            app(bad).result(timeout=60)
    assert app.runs == 0


def test_a_value_that_cannot_be_sent_does_not_block_later_calls(tmp_path: Path) -> None:
    app = Counted(tmp_path / "runs", lambda x, y: 5, ignore_for_cache=["y"])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            with pytest.raises((DependencyError, TypeError, ValueError)):
                app(1, pool.submit(threading.Lock)).result(timeout=60)
    assert app(1, 2).result(timeout=60) == 5


def test_a_cancelled_call_is_not_remembered(tmp_path: Path, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(inline=True)
    blocker = python_app(hold.__wrapped__, data_flow_kernel=engine)(str(tmp_path / "gate"))
    soon(blocker.running)
    app = Counted(tmp_path / "runs", lambda x: x, data_flow_kernel=engine)
    first, second = app(1), app(1)
    assert first.cancel()
    (tmp_path / "gate").touch()
    assert second.result(timeout=60) == 1
    assert app(1).result(timeout=60) == 1
    assert (app.runs, first.cancelled()) == (1, True)
    blocker.result(timeout=60)


def test_what_cannot_be_identified_fails_the_call() -> None:
    app = python_app(lambda x: 1, cache=True)
    with pytest.raises(ValueError, match="cannot be part of a memoisation key"):
        app(threading.Lock()).result(timeout=60)


# -- memoizers --


class Constant(Memoizer):
    """Says 42 for calls with the argument 1."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def start(self, *, run_dir: str, config_run_dir: str) -> None:
        self.log.append(("start", Path(run_dir).parent == Path(config_run_dir)))

    def check_memo(self, task: Any) -> Any:
        self.log.append(("check", task["args"]))
        if task["args"] != (1,):
            return None
        future: Any = concurrent.futures.Future()
        future.set_result(42)
        return future

    def update_memo_result(self, task: Any, result: Any) -> None:
        self.log.append(("result", task["id"], result))

    def update_memo_exception(self, task: Any, exception: BaseException) -> None:
        self.log.append(("exception", repr(exception)))

    def close(self) -> None:
        self.log.append("close")


def test_a_memoizer_of_ones_own(make_engine: Callable[..., Engine]) -> None:
    memoizer = Constant()
    engine = make_engine(inline=True, memoizer=memoizer)
    app = python_app(lambda x: 1 // x, cache=True, data_flow_kernel=engine)
    assert app(1).result(timeout=60) == 42
    second = app(2)
    assert second.result(timeout=60) == 0
    python_app(lambda x: x, data_flow_kernel=engine)(1).result(timeout=60)
    engine.close()
    assert memoizer.log == [
        ("start", True),
        ("check", (1,)),
        ("check", (2,)),
        ("result", second.tid, 0),
        "close",
    ]


def test_a_memoizer_that_gives_a_lost_worker_for_ever(make_engine: Callable[..., Engine]) -> None:
    class Stubborn(Constant):
        future: Any = concurrent.futures.Future()
        future.set_exception(WorkerLost(1, "host", 1, 9, "worker"))

        def check_memo(self, task: Any) -> Any:
            return self.future

    engine = make_engine(inline=True, memoizer=Stubborn())
    assert python_app(lambda: 5, cache=True, data_flow_kernel=engine)().result(timeout=60) == 5


def test_a_memoizer_that_is_broken(make_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Constant):
        def check_memo(self, task: Any) -> Any:
            task["hashsum"] = "x"
            if task["args"] == (0,):
                raise LookupError("check")

        def update_memo_result(self, task: Any, result: Any) -> None:
            raise LookupError("result")

        def update_memo_exception(self, task: Any, exception: BaseException) -> None:
            raise LookupError("exception")

    app = python_app(lambda x: 1 // (x - 1), cache=True, data_flow_kernel=make_engine(inline=True, memoizer=Broken()))
    for x, kind, text in ((0, LookupError, "check"), (1, ZeroDivisionError, "division"), (2, LookupError, "result")):
        with pytest.raises(kind, match=text):
            app(x).result(timeout=60)
    assert "could not take note" in caplog.text


def test_hooks_hear_of_hits(make_engine: Callable[..., Engine]) -> None:
    heard: list[str] = []
    engine = make_engine(inline=True, hooks=[lambda record, old, new: heard.append(f"{record['id']} {new}")])
    app = python_app(lambda x: x, cache=True, data_flow_kernel=engine)
    first = app(1)
    first.result(timeout=60)
    second = app(1)
    assert second.result(timeout=60) == 1
    assert heard == [f"{first.tid} {state}" for state in ("pending", "launched", "exec_done")] + [
        f"{second.tid} {state}" for state in ("pending", "memo_done")
    ]
    assert kernel_of(engine).states.counts["memo_done"] == 1


# -- cost --


def test_what_a_hit_costs(capsys: pytest.CaptureFixture[str]) -> None:
    app = python_app(lambda x, y=2: x + y, cache=True)
    assert app(1).result(timeout=60) == 3
    times_ns = []
    for _ in range(3000):
        begin = time.perf_counter_ns()
        value = app(1).result()
        times_ns.append(time.perf_counter_ns() - begin)
    assert value == 3
    with capsys.disabled():
        print(f"\n[cache hit with its result: median {statistics.median(times_ns) / 1000:.1f} us]")
