"""What tests of several files are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memory import Memory
from rings import Ring


@pytest.fixture
def ring() -> Iterator[Ring]:
    memory = Memory()
    ring = Ring(256, memory)
    yield ring
    ring.close()
    assert memory.live == 0
    memory.close()
