"""The end of a kernel while calls are between two of their steps: by gates, no call is where it is by luck."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

import mpitask
from mpitask.compat.parsl.app.app import bash_app, join_app, python_app
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.data_provider.files import File
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel
from mpitask.compat.parsl.executors import ThreadPoolExecutor
from mpitask.compat.parsl.executors.base import ParslExecutor
from mpitask.dataflow import kernel_of

LIMIT_S = 60


class Held:
    """In place of the kernel's pool: what it is given waits for `release`."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self._work: list[Callable[[], Any]] = []

    def submit(self, fn: Callable[[], Any]) -> None:
        self._work.append(fn)
        self.arrived.release()

    def release(self) -> None:
        work, self._work = self._work, []
        for fn in work:
            fn()

    def close(self, *, drop: bool = True) -> None:
        if not drop:
            self.release()


class Told(ParslExecutor):
    """Runs nothing; what the kernel does when it ends it, the test says."""

    label = "told"

    def __init__(self, at_shutdown: Callable[[], Any]) -> None:
        super().__init__()
        self._at_shutdown = at_shutdown

    def start(self) -> None:
        pass

    def submit(self, func: Any, resource_specification: Any, *args: Any, **kwargs: Any) -> Future[Any]:
        raise NotImplementedError

    def shutdown(self) -> None:
        self._at_shutdown()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARSL_WORKER_COUNT", "")


@pytest.fixture(params=["own engine", "engine of the job"])
def begin(request: pytest.FixtureRequest) -> Iterator[Callable[..., DataFlowKernel]]:
    """Makes kernels."""
    threads = [ThreadPoolExecutor()]
    if request.param == "own engine":
        yield lambda *first, **options: DataFlowKernel(
            Config(executors=[*first, *threads], initialize_logging=False, **options)
        )
        return
    with mpitask.load(inline=True):
        yield lambda *first, **options: DataFlowKernel(
            Config(executors=[*first, *threads], initialize_logging=False, **options)
        )


def test_what_has_not_begun_is_cancelled(begin: Callable[..., DataFlowKernel], tmp_path: Path) -> None:
    held = Held()
    dfk = begin(Told(held.release))  # the call goes on while the executors are being ended
    dfk._kernel._pool = held  # type: ignore[assignment]
    source: Future[int] = Future()

    @bash_app(data_flow_kernel=dfk, executors=["threads"])
    def make(inputs: Any, outputs: Any) -> str:
        return f"touch {outputs[0]}"

    call = make(inputs=[source], outputs=[File("made")])
    source.set_result(1)
    assert held.arrived.acquire(timeout=LIMIT_S)
    dfk.cleanup()
    for future in (call, call.outputs[0]):
        with pytest.raises(CancelledError):
            future.result(LIMIT_S)
    assert call.task_status() == "cancelled"
    assert not (tmp_path / "made").exists()


def test_what_has_begun_gives_its_result(begin: Callable[..., DataFlowKernel]) -> None:
    held = Held()
    dfk = begin()
    dfk._kernel._pool = held  # type: ignore[assignment]
    go, runs = threading.Event(), threading.Event()

    @bash_app(data_flow_kernel=dfk)
    def make(outputs: Any) -> str:
        runs.set()
        assert go.wait(LIMIT_S)
        return f"touch {outputs[0]}"

    call = make(outputs=[File("made")])
    assert runs.wait(LIMIT_S)
    ending = threading.Thread(target=dfk.cleanup)
    ending.start()
    go.set()
    assert held.arrived.acquire(timeout=LIMIT_S)
    held.release()
    ending.join(LIMIT_S)
    assert call.result(LIMIT_S) == 0
    assert call.outputs[0].result(LIMIT_S).filename == "made"


def test_a_failed_attempt_that_is_not_followed_is_the_end(begin: Callable[..., DataFlowKernel]) -> None:
    held = Held()
    dfk = begin(Told(held.release), retries=200)
    dfk._kernel._pool = held  # type: ignore[assignment]
    call = python_app(divmod, data_flow_kernel=dfk, executors=["threads"])(1, 0)
    assert held.arrived.acquire(timeout=LIMIT_S)  # the attempt is to be looked at,
    held.release()
    assert held.arrived.acquire(timeout=LIMIT_S)  # and the next one to begin
    dfk.cleanup()
    assert isinstance(call.exception(LIMIT_S), ZeroDivisionError)
    assert call.task_status() == "failed"


def test_an_attempt_that_is_being_begun_counts_as_begun(
    begin: Callable[..., DataFlowKernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go = threading.Event(), threading.Event()

    class Slow(Told):
        def submit(self, func: Any, resource_specification: Any, *args: Any, **kwargs: Any) -> Future[Any]:
            inside.set()
            assert go.wait(LIMIT_S)
            done: Future[Any] = Future()
            done.set_result(func(*args, **kwargs))
            return done

    ended, waits = threading.Event(), threading.Event()
    dfk = begin(Slow(ended.set))
    stop = dfk._kernel.stop
    monkeypatch.setattr(dfk._kernel, "stop", lambda *args: (waits.set(), stop(*args)))
    calls: list[Any] = []
    calling = threading.Thread(
        target=lambda: calls.append(python_app(abs, data_flow_kernel=dfk, executors=["told"])(-5))
    )
    calling.start()
    assert inside.wait(LIMIT_S)
    ending = threading.Thread(target=dfk.cleanup)
    ending.start()
    assert waits.wait(LIMIT_S)
    assert not ended.is_set()  # it waits for that attempt
    go.set()
    calling.join(LIMIT_S)
    ending.join(LIMIT_S)
    assert calls[0].result(LIMIT_S) == 5


def test_a_kernel_without_threads_of_its_own_goes_on() -> None:
    """Steps that come after the pool has ended are done by whoever brings them."""
    with mpitask.load(inline=True) as engine:
        kernel_of(engine)._pool.close()
        source: Future[int] = Future()
        call = mpitask.python_app(abs, cache=True)(source)
        failing = mpitask.python_app(divmod, cache=True)(1, source)
        source.set_result(0)
        assert call.result(LIMIT_S) == 0
        assert isinstance(failing.exception(LIMIT_S), ZeroDivisionError)


def test_after_an_exception_nothing_is_left_open(begin: Callable[..., DataFlowKernel]) -> None:
    go, runs = threading.Event(), threading.Event()

    def run() -> int:
        runs.set()
        assert go.wait(LIMIT_S)
        return 5

    dfk = begin(Told(go.set), exit_mode="wait")
    threads = {"data_flow_kernel": dfk, "executors": ["threads"]}
    calls = {}
    with contextlib.suppress(KeyError), dfk:
        calls["running"] = python_app(run, **threads)()
        calls["waiting"] = python_app(abs, **threads)(calls["running"])
        calls["behind"] = python_app(abs, **threads)([calls["waiting"]])
        calls["join"] = join_app(lambda x: x, data_flow_kernel=dfk)(calls["running"])
        assert runs.wait(LIMIT_S)
        raise KeyError
    assert dfk.cleanup_called
    assert calls.pop("running").result(LIMIT_S) == 5
    for call in calls.values():
        assert call.done()
        with pytest.raises(CancelledError):
            call.result(LIMIT_S)
