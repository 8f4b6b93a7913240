"""Apps made of objects and bound methods: each call has the state that its object had when the call was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps_helpers import Scaled, hold

from mpitask import Engine, bash_app, python_app

HOWS: dict[str, Callable[[Scaled], Callable[..., Any]]] = {
    "object": lambda scaled: scaled,
    "method": lambda scaled: scaled.method,
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("options", [{}, {"walltime": 60}, {"cache": True}], ids=str)
def test_the_state_is_that_of_the_call(engine: Engine, tmp_path: Path, how: str, options: dict[str, Any]) -> None:
    """Also where a call waits for its argument while the object changes."""
    gate = tmp_path / "gate"
    scaled = Scaled(1)
    app = python_app(HOWS[how](scaled), data_flow_kernel=engine, **options)
    waited_for = hold(str(gate), 10)
    futures = []
    for factor in range(1, 6):
        scaled.factor = factor
        futures += [app(10), app(waited_for)]
    scaled.factor = 100
    gate.touch()
    expected = [10 * factor if how == "object" else 10 + factor for factor in range(1, 6)]
    assert [future.result(timeout=60) for future in futures] == [value for value in expected for _ in "ab"]
    assert app(x=1).result(timeout=60) == (100 if how == "object" else 101)


class Command:
    def __init__(self, status: int) -> None:
        self.status = status

    def __call__(self) -> str:
        return f"test {self.status} = 0"


@pytest.mark.parametrize("options", [{}, {"walltime": 60}], ids=str)
def test_a_command_of_an_object(engine: Engine, options: dict[str, Any]) -> None:
    command = Command(1)
    app = bash_app(command, data_flow_kernel=engine, **options)
    assert app().exception(timeout=60) is not None
    command.status = 0
    assert app().result(timeout=60) == 0
