"""Calls under Parsl's name that are simply tasks of the engine: which are, and that nobody can tell."""

from __future__ import annotations

import concurrent.futures
import gc
import io
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import mpitask
from helpers.processes import Launcher
from mpitask.compat.parsl.app.app import bash_app, join_app, python_app
from mpitask.compat.parsl.benchmark import perf
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.data_provider.files import File
from mpitask.compat.parsl.dataflow._plain import PlainFuture
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel, load
from mpitask.compat.parsl.dataflow.futures import AppFuture
from mpitask.compat.parsl.dataflow.states import States
from mpitask.compat.parsl.executors import HighThroughputExecutor, MPIExecutor, ThreadPoolExecutor

LIMIT_S = 60


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARSL_WORKER_COUNT", "")
    log = logging.getLogger("parsl")
    before = log.level
    log.setLevel(logging.WARNING)  # pytest listens to whatever is passed on
    yield
    log.setLevel(before)


@pytest.fixture
def begin() -> Iterator[Callable[..., DataFlowKernel]]:
    """Loads kernels, one at a time."""
    loaded: list[DataFlowKernel] = []

    def make(*executors: Any, **options: Any) -> DataFlowKernel:
        known = list(executors) or [HighThroughputExecutor(label="htex", max_workers_per_node=1)]
        loaded.append(load(Config(executors=known, **{"initialize_logging": False, **options})))
        return loaded[-1]

    yield make
    for dfk in loaded:
        if not dfk.cleanup_called:
            dfk.cleanup()


def give(x: Any = None, inputs: Any = (), parsl_resource_specification: Any = {}) -> Any:  # noqa: B006
    return x


def wait_for_file(path: str) -> str:
    import pathlib
    import time

    pathlib.Path(path + ".began").touch()
    while not pathlib.Path(path).exists():
        time.sleep(0.001)
    return path


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_which_calls_are_plain(begin: Callable[..., DataFlowKernel]) -> None:
    dfk = begin()
    app = python_app(give)
    plain = [
        app(),
        app(1),
        app(x=[1, {"a": 2}]),
        app(app(2)),
        app(1, inputs=[app(3), 4]),
        app(1, parsl_resource_specification={}),
        python_app(executors=["htex"])(give)(1),
    ]
    assert all(type(future) is PlainFuture for future in plain)
    assert all(isinstance(future, AppFuture) for future in plain)
    for_the_kernel = [
        python_app(cache=True)(give)(1),
        app(1, inputs=[File("a")]),
        app(1, inputs=(2,)),
        app([File("a")]),
        app(1, parsl_resource_specification={"priority": 1}),
        app(1, parsl_resource_specification={"cores": 1}),
        app(threading.Lock()),
        python_app(executors=["nowhere"])(give)(1),
        python_app(lambda walltime: 1)(walltime=5),
        bash_app(lambda: "true")(),
        join_app(lambda: app(1))(),
    ]
    assert not any(isinstance(future, PlainFuture) for future in for_the_kernel)
    for future in for_the_kernel:
        future.exception(LIMIT_S)
    dfk.wait_for_current_tasks()
    assert dfk.task_count >= len(plain) + len(for_the_kernel) + 2


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 1},
        {"retry_handler": lambda error, record: 1},
        {"garbage_collect": False},
    ],
)
def test_kernels_that_look_after_all(begin: Callable[..., DataFlowKernel], options: dict[str, Any]) -> None:
    dfk = begin(**options)
    future = python_app(give)(1)
    assert (type(future) is PlainFuture, future.result(LIMIT_S), dfk.plain) == (False, 1, None)


def test_executors_that_are_more_than_the_engine(begin: Callable[..., DataFlowKernel]) -> None:
    begin(HighThroughputExecutor(label="htex", max_workers_per_node=1), ThreadPoolExecutor())
    assert not isinstance(python_app(give)(1), PlainFuture)
    assert isinstance(python_app(executors=["htex"])(give)(1), PlainFuture)
    begin_mpi = MPIExecutor(label="mpi", max_workers_per_block=1)
    assert not begin_mpi.runs_calls_as_they_are


def test_later_executors_are_seen(begin: Callable[..., DataFlowKernel]) -> None:
    dfk = begin()
    app = python_app(give)
    assert isinstance(app(1), PlainFuture)
    dfk.add_executors([ThreadPoolExecutor()])
    assert not isinstance(app(1), PlainFuture)


def test_a_listener_hears_of_every_step(begin: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture) -> None:
    begin(initialize_logging=False)
    app = python_app(give)
    assert isinstance(app(1), PlainFuture)
    with caplog.at_level(logging.DEBUG, "parsl"):
        future = app(2)
        future.result(LIMIT_S)
    assert not isinstance(future, PlainFuture)
    assert any("launched" in record.getMessage() for record in caplog.records)


def test_what_scripts_look_at(begin: Callable[..., DataFlowKernel]) -> None:
    dfk = begin()
    source: Future[int] = Future()
    app = python_app(give)
    running = python_app(wait_for_file)("go")
    waiting = app(source, inputs=[running])
    until(Path("go.began").exists)
    assert (running.task_status(), waiting.task_status()) == ("launched", "pending")
    assert set(dfk.tasks) == {running.tid, waiting.tid}
    record = waiting.task_record
    assert record is waiting.task_record
    assert (record["app_fu"], record["func"], record["args"], record["executor"]) == (waiting, give, (source,), "htex")
    assert (record["status"], record.get("time_returned")) == (States.pending, None)
    assert record["depends"] == [source, running]
    assert (dfk.task_count, dfk.task_state_counts[States.pending], dfk.task_state_counts[States.launched]) == (2, 1, 1)
    assert (waiting.outputs, waiting.stdout, waiting.stderr) == ([], None, None)
    source.set_result(5)
    Path("go").touch()
    assert waiting.result(LIMIT_S) == 5
    assert (record["status"], waiting.task_status()) == (States.exec_done, "exec_done")
    assert record["time_returned"] >= record["time_invoked"]
    assert dfk.tasks == {}
    assert dfk.task_state_counts[States.exec_done] == 2
    del running, waiting, record
    gc.collect()
    assert dfk.task_state_counts[States.exec_done] == 2


def test_counts_over_many_calls(begin: Callable[..., DataFlowKernel]) -> None:
    dfk = begin()
    app = python_app(give)
    kept = [app(i) for i in range(5000)]
    assert [future.result(LIMIT_S) for future in kept] == list(range(5000))
    for i in range(3000):
        app(i)
    dfk.wait_for_current_tasks()
    assert dfk.task_count == 8000
    until(lambda: dfk.task_state_counts[States.exec_done] == 8000)
    assert dfk.tasks == {}


def test_a_future_that_is_let_go_is_waited_for(begin: Callable[..., DataFlowKernel]) -> None:
    dfk = begin()
    python_app(wait_for_file)("go")
    gc.collect()
    ((number, record),) = dfk.tasks.items()
    assert (record["id"], record["app_fu"].tid, record["func"]) == (number, number, wait_for_file)
    waiting = threading.Thread(target=dfk.wait_for_current_tasks)
    waiting.start()
    until(Path("go.began").exists)
    assert waiting.is_alive()
    Path("go").touch()
    waiting.join(LIMIT_S)
    assert not waiting.is_alive()
    assert record["app_fu"].result(LIMIT_S) == "go"
    del record
    until(lambda: dfk.task_state_counts[States.exec_done] == 1)
    assert not dfk._plain_calls._left


def test_failures(begin: Callable[..., DataFlowKernel], caplog: pytest.LogCaptureFixture) -> None:
    dfk = begin()
    with caplog.at_level(logging.WARNING, "parsl"):
        first = python_app(divmod)(1, 0)
        middle = python_app(give)(first, inputs=[first, 1])
        last = python_app(give)(x=middle).exception(LIMIT_S)
        assert isinstance(last, mpitask.DependencyError)
        ((inner, name),) = last.dependent_exceptions_tids
        assert isinstance(inner, mpitask.DependencyError)
        assert (name, inner) == (f"task {middle.tid}", middle.exception())
        assert last.__cause__ is first.exception()
        assert isinstance(first.exception(), ZeroDivisionError)
        assert (first.task_status(), middle.task_status()) == ("failed", "dep_fail")
        assert first.task_record["status"] == States.failed
        exits = python_app(sys.exit)(3).exception(LIMIT_S)
        assert isinstance(exits, mpitask.WorkerLost)
        python_app(divmod)(2, 0)  # nobody asks
        dfk.wait_for_current_tasks()
        until(lambda: dfk.task_state_counts[States.failed] == 3)
        python_app(give)(1).result(LIMIT_S)
        dfk.cleanup()
    told = [record.getMessage() for record in caplog.records if "->" in record.getMessage()]
    assert len([text for text in told if "divmod: launched -> failed" in text]) == 2
    assert len([text for text in told if "give: launched -> dep_fail" in text]) == 2


def test_the_standard_library_s_waits(begin: Callable[..., DataFlowKernel]) -> None:
    begin()
    app = python_app(give)
    futures = [app(i) for i in range(300)]
    futures[0].result(LIMIT_S)
    called: list[int] = []
    for future in futures:
        future.add_done_callback(lambda done: called.append(done.result()))
    assert sorted(f.result() for f in concurrent.futures.as_completed(futures, LIMIT_S)) == list(range(300))
    assert concurrent.futures.wait(futures, LIMIT_S).not_done == set()
    until(lambda: len(called) == 300)
    source: Future[int] = Future()
    cancelled = app(source)
    assert cancelled.cancel()
    assert cancelled.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        cancelled.result(LIMIT_S)
    assert app({"a": 5})["a"].result(LIMIT_S) == 5


def test_the_end_drops_what_has_not_begun(tmp_path: Path) -> None:
    with mpitask.load(workers=1):
        dfk = DataFlowKernel(Config(executors=[HighThroughputExecutor()], initialize_logging=False))
        running = python_app(wait_for_file, data_flow_kernel=dfk)("go")
        until(Path("go.began").exists)
        source: Future[int] = Future()
        waiting = python_app(give, data_flow_kernel=dfk)(source)
        dfk.cleanup()
        assert waiting.cancelled()
        source.set_result(0)
        Path("go").touch()
        assert running.result(LIMIT_S) == "go"
        with pytest.raises(mpitask.NoEngineError, match="cleaned up"):
            python_app(give, data_flow_kernel=dfk)(1)


CONFIG = """
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.executors import HighThroughputExecutor


def fresh_config():
    return Config(executors=[HighThroughputExecutor(max_workers_per_node=1)], initialize_logging=False)
"""


@pytest.mark.parametrize(
    ("mode", "sizes"), [(["--iterate", "3,20,5"], ["3", "20", "5"]), (["--time", "0.001"], ["10"]), ([], None)]
)
def test_parsl_perf(monkeypatch: pytest.MonkeyPatch, mode: list[str], sizes: list[str] | None) -> None:
    Path("config.py").write_text(CONFIG)
    monkeypatch.setattr(sys, "argv", ["parsl-perf", *mode, *(["--config", "config.py"] if mode else [])])
    with redirect_stdout(io.StringIO()) as printed:
        if sizes is None:
            with pytest.raises(SystemExit):
                perf.cli_run()
            return
        perf.cli_run()
    assert re.findall(r"Will run (\d+) tasks", printed.getvalue())[: len(sizes)] == sizes
    assert len(re.findall(r"^Tasks per second: [\d.]+$", printed.getvalue(), re.M)) >= len(sizes)
    assert printed.getvalue().endswith("Tests complete - leaving DFK block\nThe end\n")


PERF = """
import runpy, sys
sys.argv = ["parsl-perf", "--config", sys.argv[1], "--iterate", "5"]
runpy.run_module("{}parsl.benchmark.perf", run_name="__main__", alter_sys=True)
"""


@pytest.mark.writes
@pytest.mark.parametrize("plain", [False, True], ids=["job", "plain"])
def test_the_benchmark_as_a_module(launcher: Launcher, tmp_path: Path, plain: bool) -> None:
    config = tmp_path / "config_of_parsl.py"
    config.write_text(CONFIG.replace("mpitask.compat.", ""))
    options = [] if plain else ["--parsl", "--workers", "1"]
    source = PERF.format("mpitask.compat." if plain else "")
    done = launcher.run(source, args=[str(config)], plain=plain, options=options)
    assert (done.rc, done.err) == (0, "")
    assert "Will run 5 tasks" in done.out
