"""Most scripts of the compatibility layer run with `make test-long`: each starts programs of its own, twice."""

from __future__ import annotations

import pytest

SHORT = ("hello", "retries")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/compat/" in str(item.path) and not any(f"[{name}-plain" in item.nodeid for name in SHORT):
            item.add_marker(pytest.mark.long)
