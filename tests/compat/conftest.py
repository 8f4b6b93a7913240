"""Most scripts of the compatibility layer run with `make test-long`: each starts programs of its own, twice."""

from __future__ import annotations

import pytest

SHORT = ("hello", "retries")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_script = item.path.name == "test_parsl_scripts.py" and not any(
            f"[{name}-plain" in item.nodeid for name in SHORT
        )
        if is_script or item.nodeid.endswith("test_an_unchanged_kernel_runs_on_it[job]"):
            item.add_marker(pytest.mark.long)
