"""Options: wrong ones are named, with what would be right."""

from __future__ import annotations

from typing import Any

import pytest

import mpitask
from mpitask import Config, ConfigurationError, NoEngineError, python_app


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 0}, "workers=0: give a number from 1"),
        ({"workers": "two"}, "workers='two'"),
        ({"workers": True}, "workers=True"),
        ({"inline": 1}, "inline=1: give True or False"),
        ({"inline": True, "workers": 2}, "leave `workers` out"),
        ({"progress": "busy"}, "give 'adaptive' or 'spin'"),
        ({"retries": -1}, "retries=-1"),
        ({"ring_bytes": 1000}, "power of two"),
        ({"worker": 2}, "did you mean 'workers'"),
        ({"zzz": 2}, "there are: workers, inline"),
    ],
)
def test_wrong_options(options: dict[str, Any], text: str) -> None:
    for make in (mpitask.load, Config):
        with pytest.raises(ConfigurationError, match=text):
            make(**options)


def test_wrong_config_type() -> None:
    with pytest.raises(ConfigurationError, match="not a dict"):
        mpitask.load({"workers": 2})  # type: ignore[arg-type]


def test_repr_is_an_expression() -> None:
    config = Config(workers=3, progress="spin")
    assert eval(repr(config)) == config


def test_apps_need_an_engine() -> None:
    with pytest.raises(NoEngineError, match=r"with mpitask\.load\(\)"):
        python_app(len)([1])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: python_app(7), "makes apps of functions"),  # type: ignore[call-overload]
        (lambda: python_app(retries=-1), "retries=-1"),
        (lambda: python_app(priority="high"), "priority='high'"),  # type: ignore[call-overload]
    ],
)
def test_wrong_apps(make: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()


def test_an_ended_engine_says_so() -> None:
    app = python_app(abs)
    with mpitask.load(workers=1) as engine:
        future = app(-1)
    assert future.result() == 1
    with pytest.raises(NoEngineError):
        app(-2)
    with pytest.raises(mpitask.EngineClosedError, match="ended"):
        engine.call(1, (1,), {})
    with mpitask.load(workers=1):
        assert app(-3).result() == 3


def test_a_second_load_gives_the_running_engine() -> None:
    with mpitask.load(workers=1, retries=2) as engine:
        with mpitask.load(workers=1) as again:
            assert again is engine
            assert mpitask.load() is engine
        assert python_app(abs)(-1).result() == 1  # an inner block ends nothing
        with pytest.raises(mpitask.ConfigurationError, match=r"other options \(retries=2\).*current\(\)\.close\(\)"):
            mpitask.load(retries=3)
        with pytest.raises(mpitask.ConfigurationError, match=r"workers=1"):
            mpitask.load(workers=2)
        engine.close()
    with mpitask.load(workers=1, retries=3) as engine:
        assert engine.config.retries == 3
