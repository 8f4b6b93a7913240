"""Values of the user are handed on, not looked at: no operator of theirs is called, whatever it would do."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import mpitask
from helpers.hostile import Hostile, HostileCallable, HostileDict, HostileList
from mpitask.compat.parsl.app import app as parsl_app
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel
from mpitask.compat.parsl.executors import HighThroughputExecutor, ThreadPoolExecutor

HOSTILE = Hostile()
KINDS = (Hostile, HostileList, HostileDict)


def kind_of(*args: Any, **kwargs: Any) -> str:
    return " ".join(type(value).__name__ for value in (*args, *kwargs.values()))


def take(x: Any = HOSTILE, *, y: Any = HOSTILE, inputs: Any = ()) -> str:
    return kind_of(x, y)


def give(x: Any = None) -> Any:
    return Hostile()


def command(x: Any = HOSTILE, *, y: Any = HOSTILE) -> str:
    return "true"


@pytest.fixture(params=["native", "native with retry handler", "engine", "engine with retries", "threads"])
def apps(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """python_app, bash_app and join_app of one face."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARSL_WORKER_COUNT", "")
    if request.param.startswith("native"):
        handler = None if request.param == "native" else lambda error, record: 1
        with mpitask.load(workers=1, retry_handler=handler):
            yield mpitask.python_app, mpitask.bash_app, mpitask.join_app
        return
    executor: Any = (
        ThreadPoolExecutor() if request.param == "threads" else HighThroughputExecutor(max_workers_per_node=1)
    )
    config = Config(executors=[executor], initialize_logging=False, retries=int(request.param.endswith("retries")))
    with DataFlowKernel(config) as dfk:

        def bound(make: Any) -> Any:
            return lambda fn: make(fn, data_flow_kernel=dfk)

        yield tuple(bound(make) for make in (parsl_app.python_app, parsl_app.bash_app, parsl_app.join_app))


@pytest.mark.parametrize("kind", KINDS)
def test_arguments(apps: Any, kind: Any) -> None:
    python_app, bash_app, join_app = apps
    app = python_app(kind_of)
    expected = kind.__name__ if "threads" in str(apps) else None
    for future in (app(kind()), app(x=kind()), app([kind()]), app({"a": (kind(),)}), app(kind(), x={1: kind()})):
        assert set(future.result(60).split()) <= {kind.__name__, "Hostile", "list", "dict"}, expected
    source: Future[int] = Future()
    later = app(kind(), source)
    source.set_result(1)
    assert later.result(60).endswith("int")
    assert bash_app(command)(kind(), y=kind()).result(60) == 0
    assert join_app(app)(kind(), y=kind()).result(60)


def test_defaults_and_results(apps: Any) -> None:
    python_app, bash_app, join_app = apps
    assert python_app(take)().result(60) == "Hostile Hostile"
    assert python_app(take)(1, inputs=[Hostile(), 2]).result(60) == "int Hostile"
    assert bash_app(command)().result(60) == 0
    result = python_app(give)().result(60)
    assert type(result) is Hostile
    assert python_app(kind_of)(python_app(give)()).result(60) == "Hostile"
    assert python_app(kind_of)([python_app(give)(1)]).result(60) == "list"
    assert type(join_app(python_app(give))().result(60)) is Hostile
    assert [type(value) for value in join_app(lambda: [python_app(give)()])().result(60)] == [Hostile]
    done = list(concurrent.futures.as_completed([python_app(give)(), python_app(give)(2)], 60))
    assert [type(future.result(60)) for future in done] == [Hostile, Hostile]


def test_defaults_with_a_meaning(apps: Any) -> None:
    python_app, _, _ = apps

    def with_options(x: int, inputs: Any = HOSTILE, label: Any = HOSTILE, other: Any = HOSTILE) -> int:
        return x

    app = python_app(with_options)
    with pytest.raises(TypeError, match="inputs"):
        app(1)
    assert app(1, inputs=[Hostile()], label=Hostile()).result(60) == 1


@pytest.mark.parametrize("apps", ["engine", "engine with retries", "threads"], indirect=True)
def test_functions(apps: Any) -> None:
    python_app, _, _ = apps
    app = python_app(HostileCallable())
    assert app(5).result(60) == 5
    assert python_app(HostileCallable())(6, x=7).result(60) == ((6,), {"x": 7})


@pytest.mark.parametrize("name", ["stdout", "stderr", "outputs", "inputs", "walltime"])
def test_wrong_options_of_calls(apps: Any, name: str) -> None:
    _, bash_app, _ = apps
    try:
        error: Any = bash_app(lambda **_: "true")(**{name: Hostile()}).exception(60)
    except TypeError as raised:
        error = raised
    assert isinstance(error, TypeError)
    assert "was called" not in str(error)


def test_wrong_options_of_apps() -> None:
    for make in (parsl_app.python_app, parsl_app.bash_app):
        for name in ("executors", "ignore_for_cache", "cache", "data_flow_kernel"):
            with pytest.raises((mpitask.MpitaskError, TypeError)) as caught:
                make(**{name: Hostile()})
            assert "was called" not in str(caught.value)


def test_options_of_configurations() -> None:
    executor = HighThroughputExecutor(label="x", worker_logdir_root=Hostile(), address=Hostile())  # type: ignore[arg-type]
    with DataFlowKernel(Config(executors=[executor], initialize_logging=False)) as dfk:
        assert parsl_app.python_app(kind_of, data_flow_kernel=dfk)(1).result(60) == "int"


def test_maps_and_executors() -> None:
    with mpitask.load(workers=1):
        assert mpitask.map(kind_of, [Hostile(), Hostile()]).result(60) == ["Hostile"] * 2
        assert [type(value) for value in mpitask.map(give, [1, 2, 3])] == [Hostile] * 3
        assert type(mpitask.map(give, range(3)).reduce(_second, initial=Hostile()).result(60)) is Hostile
        with mpitask.Executor() as executor:
            assert executor.submit(kind_of, Hostile(), x=Hostile()).result(60) == "Hostile Hostile"
            assert list(executor.map(kind_of, [Hostile(), Hostile()], chunksize=2)) == ["Hostile"] * 2
            assert executor.submit(HostileCallable(), 5).result(60) == 5
            assert type(executor.submit(give).result(60)) is Hostile
        shared = mpitask.share(Hostile())
        assert mpitask.python_app(kind_of)(shared).result(60) == "Hostile"


def _second(a: Any, b: Any) -> Any:
    return b
