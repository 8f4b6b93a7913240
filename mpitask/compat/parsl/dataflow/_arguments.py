"""What the kernel reads in a call's arguments: streams, a priority, futures that the script's own resolver finds."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.dataflow.dependency_resolvers import (
    DEEP_DEPENDENCY_RESOLVER,
    SHALLOW_DEPENDENCY_RESOLVER,
    DependencyResolver,
)
from mpitask.dataflow import TaskRecord

_PRIORITY_TOP = 1 << 30


def priority_of(spec: Any) -> int:
    """A lower number goes first, and any number before none."""
    wanted = spec.get("priority") if isinstance(spec, dict) else None
    if not isinstance(wanted, int | float):
        return 0
    return max(1, _PRIORITY_TOP - round(min(max(wanted, 0), _PRIORITY_TOP)))


def resolver_of(config: Config) -> DependencyResolver | None:
    """The script's own resolver; None: mpitask finds everything by itself."""
    resolver = config.dependency_resolver
    return None if resolver is SHALLOW_DEPENDENCY_RESOLVER or resolver is DEEP_DEPENDENCY_RESOLVER else resolver


def gathered(
    resolver: DependencyResolver, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> concurrent.futures.Future[Any]:
    """A future that ends when those have that the resolver finds."""
    inputs = kwargs.get("inputs")
    items = [*args, *kwargs.values(), *(inputs if isinstance(inputs, list | tuple) else ())]
    return _all_of(future for item in items for future in resolver.traverse_to_gather(item))


def unwrap(resolver: DependencyResolver, record: TaskRecord) -> None:
    """Puts values in their places in the arguments of a call."""
    value_of = resolver.traverse_to_unwrap
    kwargs = {name: value_of(value) for name, value in record["kwargs"].items()}
    if isinstance(kwargs.get("inputs"), list):
        kwargs["inputs"] = [value_of(item) for item in kwargs["inputs"]]
    record["args"], record["kwargs"] = tuple(value_of(arg) for arg in record["args"]), kwargs


def _all_of(futures: Iterable[concurrent.futures.Future[Any]]) -> concurrent.futures.Future[Any]:
    """A future that ends when all of some have: without a value, or with the first exception."""
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
    waited = list(futures)
    left = len(waited) + 1
    lock = threading.Lock()

    def one_done(_: object) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        for future in waited:
            error = future.exception() if not future.cancelled() else concurrent.futures.CancelledError()
            if error is not None:
                outcome.set_exception(error)
                return
        outcome.set_result(None)

    for future in waited:
        future.add_done_callback(one_done)
    one_done(None)
    return outcome
