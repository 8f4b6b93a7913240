"""What tests of several files are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memory import OK, Memory
from rings import Ring
from scheduler import Sched


@pytest.fixture
def ring() -> Iterator[Ring]:
    memory = Memory()
    ring = Ring(256, memory)
    yield ring
    ring.close()
    assert memory.live == 0
    memory.close()


@pytest.fixture
def sched() -> Iterator[Sched]:
    memory = Memory()
    sched = Sched(memory)
    yield sched
    assert sched.check() == OK
    sched.destroy()
    assert memory.live == 0
    memory.close()
