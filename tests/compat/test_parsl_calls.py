"""Calls through the face for Parsl, without making it `parsl`: what they may be given, and how they end."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import mpitask
import mpitask.memo
from mpitask.compat.parsl import _pinning
from mpitask.compat.parsl._options import TypeCheckError
from mpitask.compat.parsl._pools import Gate
from mpitask.compat.parsl.app.app import bash_app, join_app, python_app
from mpitask.compat.parsl.app.errors import BadStdStreamFile
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.data_provider.files import File
from mpitask.compat.parsl.data_provider.staging import Staging
from mpitask.compat.parsl.dataflow._arguments import priority_of
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel, load
from mpitask.compat.parsl.dataflow.memoization import BasicMemoizer
from mpitask.compat.parsl.dataflow.states import States
from mpitask.compat.parsl.errors import NoDataFlowKernelError, ParslError
from mpitask.compat.parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from mpitask.compat.parsl.executors.errors import InvalidResourceSpecification
from mpitask.worker.zygote import COMPAT_VARIABLE


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataFlowKernel]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARSL_WORKER_COUNT", "")  # set by kernels; so that it goes with the test
    with load(Config(executors=[ThreadPoolExecutor()], initialize_logging=False)) as dfk:
        yield dfk


def plain(x: Any = None, inputs: Any = (), outputs: Any = (), stdout: Any = None, walltime: Any = None) -> Any:
    return x


def test_no_kernel() -> None:
    with pytest.raises(NoDataFlowKernelError, match="Must first load config"):
        python_app(plain)(1)
    assert NoDataFlowKernelError is mpitask.NoEngineError
    assert ParslError is mpitask.MpitaskError


@pytest.mark.parametrize("decorator", [python_app, bash_app, join_app])
def test_wrong_apps(decorator: Any) -> None:
    with pytest.raises(TypeCheckError):
        decorator(5)
    with pytest.raises(TypeCheckError):
        decorator(cache="yes")
    with pytest.raises(TypeCheckError):
        decorator(data_flow_kernel="default")
    with pytest.raises(TypeCheckError):
        decorator(ignore_for_cache="x")
    if decorator is not join_app:
        with pytest.raises(TypeCheckError):
            decorator(executors="threads")
        with pytest.raises(TypeCheckError):
            decorator(executors=[1])


def test_a_wrong_configuration_is_not_loaded() -> None:
    with pytest.raises(TypeCheckError):
        load({"executors": []})  # type: ignore[arg-type]
    with pytest.raises(NoDataFlowKernelError):
        python_app(plain)(1)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"inputs": None}, TypeError),
        ({"outputs": None}, TypeError),
        ({"outputs": ["a"]}, (TypeError, AttributeError)),
        ({"inputs": [File("nothing:/x")]}, ValueError),
    ],
)
def test_calls_that_cannot_be_made(kernel: DataFlowKernel, kwargs: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        python_app(plain)(**kwargs)


@pytest.mark.parametrize("spec", [["a", "w"], 5, ("a", "w", 1), ("a", None), b"x"])
def test_a_wrong_stream_is_told_by_the_future(kernel: DataFlowKernel, spec: Any) -> None:
    def command(stdout: Any = None, stderr: Any = None, x: Any = None) -> str:
        return "true"

    source: Future[int] = Future()
    for future in (bash_app(command)(stdout=spec), bash_app(command)(stderr=spec, x=source)):
        if not source.done():
            source.set_result(1)
        assert isinstance(future.exception(60), TypeCheckError)
        assert spec in (future.stdout, future.stderr)
        assert future.task_status() == "failed"
    assert python_app(plain)(1, stdout=spec).result(60) == 1  # threads redirect nothing
    assert join_app(lambda stdout: python_app(plain)(2))(stdout=spec).result(60) == 2
    with DataFlowKernel(Config(executors=[HighThroughputExecutor(max_workers_per_node=1)])) as dfk:
        assert isinstance(python_app(plain, data_flow_kernel=dfk)(1, stdout=spec).exception(60), TypeCheckError)


def test_failures_that_are_told_by_the_future(kernel: DataFlowKernel) -> None:
    with pytest.raises(IndexError):
        python_app(executors=[])(plain)(1)
    invalid = python_app(executors=["nowhere"])(plain)(1)
    assert str(invalid.exception()) == f"Task {invalid.tid} requested invalid executor nowhere"
    assert isinstance(invalid.exception(), ValueError)
    assert isinstance(python_app(plain)(label="x").exception(), TypeError)
    bad = bash_app(lambda stdout: "true")(stdout="/proc/nowhere/x")
    assert isinstance(bad.exception(), BadStdStreamFile)
    refused = python_app(lambda parsl_resource_specification: 1)(parsl_resource_specification={"cores": 1})
    assert isinstance(refused.exception(), InvalidResourceSpecification)


def test_an_invalid_executor_waits_for_what_it_needs(kernel: DataFlowKernel) -> None:
    source: Future[int] = Future()
    invalid = python_app(executors=["nowhere"])(plain)(source)
    assert not invalid.done()
    source.set_result(1)
    assert isinstance(invalid.exception(20), ValueError)


def test_threads_get_the_very_objects(kernel: DataFlowKernel) -> None:
    lock = threading.Lock()
    first = python_app(plain)(lock)
    assert first.result() is lock
    assert python_app(plain)(first).result() is lock
    assert python_app(plain)(inputs=[first], x=[first]).result()[0] is lock


def test_cancelled_calls_are_no_longer_tasks(kernel: DataFlowKernel) -> None:
    source: Future[int] = Future()
    waiting = python_app(plain)(source)
    assert waiting.cancel()
    assert waiting.task_status() == "cancelled"
    kernel.wait_for_current_tasks()
    assert kernel.task_state_counts[States.cancelled] == 1
    source.set_result(1)


def test_methods_and_pickles(kernel: DataFlowKernel) -> None:
    class Holder:
        factor = 3

        @python_app
        def times(self, x: int) -> int:
            return self.factor * x

    assert Holder().times(2).result() == 6
    app = pickle.loads(pickle.dumps(python_app(len, cache=True, executors=["threads"])))
    assert (app([1, 2]).result(), app.cache, app.executors, repr(app)) == (2, True, ["threads"], "<PythonApp 'len'>")
    assert pickle.loads(pickle.dumps(join_app(len))).join


def test_defaults_that_are_hidden_by_arguments(kernel: DataFlowKernel) -> None:
    @python_app
    def app(x: int, inputs: Any = (1, 2), *, walltime: Any = 60) -> Any:
        return x, inputs, walltime

    assert app(1).result() == (1, [1, 2], 60)
    assert app(1, (3,), walltime=5).result() == (1, (3,), 5)


def test_two_kernels_on_a_running_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = mpitask.python_app(abs)
    with mpitask.load(inline=True) as engine:
        kernels = [DataFlowKernel(Config(executors=[HighThroughputExecutor()], run_dir=name)) for name in ("a", "b")]
        assert all(kernel.engine is engine for kernel in kernels)
        results = [python_app(plain, data_flow_kernel=kernel)(i) for i, kernel in enumerate(kernels)]
        assert [result.result() for result in results] == [0, 1]
        kernels[0].cleanup()
        with pytest.raises(NoDataFlowKernelError, match="cleaned up"):
            python_app(plain, data_flow_kernel=kernels[0])(1)
        assert python_app(plain, data_flow_kernel=kernels[1])(5).result() == 5
        assert own(-1).result() == 1
        kernels[1].cleanup()
        assert mpitask.current() is engine
        assert own(-2).result() == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_priorities() -> None:
    order = sorted([None, 3, 0, 1.6, 10**12, -5], key=lambda p: -priority_of({} if p is None else {"priority": p}))
    assert order[-1] is None
    assert order.index(1.6) < order.index(3) < order.index(10**12)


def test_a_gate_lets_through_what_it_should() -> None:
    with mpitask.load(workers=2) as engine:
        gate = Gate(engine, 1)
        futures = [gate.submit(divmod, 7, i) for i in range(3)]
        refused = gate.submit(len, threading.Lock())
        waiting = [gate.submit(abs, -1) for _ in range(20)]
        cancelled = waiting[-1].cancel()
        assert isinstance(futures[0].exception(), ZeroDivisionError)
        assert [future.result() for future in futures[1:]] == [(7, 0), (3, 1)]
        assert isinstance(refused.exception(), mpitask.SerializationError)
        assert {future.result() for future in waiting[: 19 if cancelled else 20]} == {1}


def test_errors_of_a_chain_nest(kernel: DataFlowKernel) -> None:
    first = python_app(divmod)(1, 0)
    last = python_app(plain)(python_app(plain)(first)).exception()
    assert isinstance(last, mpitask.DependencyError)
    ((inner, name),) = last.dependent_exceptions_tids
    assert isinstance(inner, mpitask.DependencyError)
    assert name.startswith("task ")
    assert last.__cause__ is first.exception()
    again = pickle.loads(pickle.dumps(last))
    assert [type(error) for error, _ in again.dependent_exceptions_tids] == [type(inner)]
    source: Future[int] = Future()
    waiting = python_app(plain)(source)
    source.set_exception(ValueError("of its own"))
    assert repr(source) in str(waiting.exception())


def test_exits_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config(executors=[HighThroughputExecutor(max_workers_per_node=1)], initialize_logging=False)
    with DataFlowKernel(config) as dfk:
        error = python_app(sys.exit, data_flow_kernel=dfk)(3).exception()
    assert isinstance(error, mpitask.WorkerLost)
    assert error.exit_status == 3


def test_checkpoints_are_rows_of_pickles(tmp_path: Path) -> None:
    memoizer = BasicMemoizer(checkpoint_mode="manual")
    with load(Config(memoizer=memoizer, run_dir=str(tmp_path), initialize_logging=False)) as dfk:
        assert python_app(abs, cache=True)(-5).result() == 5
        path = Path(dfk.run_dir) / "checkpoint" / "tasks.pkl"
        assert not path.exists()
        memoizer.checkpoint()
        record = pickle.loads(path.read_bytes())
    assert (set(record), record["result"]) == ({"hash", "exception", "result"}, 5)
    assert mpitask.memo.load_checkpoints(path) == {record["hash"]: 5}


def test_accelerators_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(COMPAT_VARIABLE, "mpitask.compat.parsl")
    executor = HighThroughputExecutor(max_workers_per_node=1, available_accelerators=["gpu-7"])
    with DataFlowKernel(Config(executors=[executor], initialize_logging=False)) as dfk:
        assert python_app(os.getenv, data_flow_kernel=dfk)("CUDA_VISIBLE_DEVICES").result() == "gpu-7"
    monkeypatch.delenv(_pinning.ACCELERATORS)


class Moving(Staging):
    """Moves files with a path of this machine."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "file"

    can_stage_out = can_stage_in

    def stage_in(self, dm: Any, executor: str, file: File, parent_fut: Any) -> None:
        self.seen.append(f"in {file.filename} {executor}")

    def stage_out(self, dm: Any, executor: str, file: File, app_fu: Any) -> None:
        self.seen.append(f"out {file.filename} {executor}")


def test_providers_are_asked_about_local_files(tmp_path: Path) -> None:
    provider = Moving()
    config = Config(executors=[ThreadPoolExecutor(storage_access=[provider])], initialize_logging=False)
    config.run_dir = str(tmp_path)
    with DataFlowKernel(config) as dfk:
        call = python_app(plain, data_flow_kernel=dfk)(1, inputs=[File("a")], outputs=[File("b")])
        call.exception()
    assert sorted(provider.seen) == ["in a threads", "out b threads"]
