"""What the function of a join has returned stands for: a future, or a list, tuple or dict of futures."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from typing import Any

from mpitask.dataflow.record import TaskRecord, error_of
from mpitask.errors import JoinError, shown


def futures_in(record: TaskRecord, value: Any) -> Sequence[concurrent.futures.Future[Any]]:
    """Its futures.

    Raises:
        TypeError: it is something else.
    """
    futures: list[Any] | None = None
    if isinstance(value, concurrent.futures.Future):
        futures = [value]
    elif isinstance(value, list | tuple):
        futures = list(value)
    elif isinstance(value, dict):
        futures = list(value.values())
    if futures is None or not all(isinstance(future, concurrent.futures.Future) for future in futures):
        raise TypeError(
            f"join_app {record['func_name']} must return a future, or a list, tuple or dict of futures; "
            f"it returned {shown(value)}"
        )
    return futures


def failures_of(futures: Sequence[concurrent.futures.Future[Any]]) -> list[tuple[BaseException, str]]:
    """Of futures that have ended: what has failed, each with the name of its task."""
    failures: list[tuple[BaseException, str]] = []
    for future in futures:
        error = error_of(future)
        if isinstance(error, JoinError):  # of a join inside this one: what has really failed
            failures += error.failures
        elif error is not None:
            failures.append((error, f"task {getattr(future, 'tid', '?')}"))
    return failures


def result_of(value: Any) -> Any:
    """The same with results in place of the futures, none of which has failed."""
    if isinstance(value, dict):
        return {key: future.result() for key, future in value.items()}
    if isinstance(value, list | tuple):
        result = [future.result() for future in value]
        return result if isinstance(value, list) else tuple(result)
    return value.result()
