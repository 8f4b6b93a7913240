"""`parsl.dataflow.dependency_resolvers`: where futures are looked for in arguments.

mpitask looks into containers at any depth by itself, so that the two resolvers of Parsl change nothing here. One of a
script's own is used beside that, for its own types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from mpitask.dataflow import walk


@dataclass
class DependencyResolver:
    """How futures in an argument are found, and replaced by their values.

    Args:
        traverse_to_gather: gives the futures in an argument.
        traverse_to_unwrap: gives the argument with values in their place, when all of them are done.
    """

    traverse_to_gather: Callable[[Any], Sequence[Future[Any]]]
    traverse_to_unwrap: Callable[[Any], Any]


def shallow_traverse_to_gather(o: Any) -> Sequence[Future[Any]]:
    """The future that `o` is, if it is one."""
    return [o] if isinstance(o, Future) else []


def shallow_traverse_to_unwrap(o: Any) -> Any:
    """Its value if it is a future, else itself."""
    return o.result() if isinstance(o, Future) else o


def deep_traverse_to_gather(o: Any) -> Sequence[Future[Any]]:
    """The futures in `o`, at any depth."""
    return walk.futures_in((o,), {})


def deep_traverse_to_unwrap(o: Any) -> Any:
    """The same with values in place of futures."""
    return walk.resolved((o,), {})[0][0]


SHALLOW_DEPENDENCY_RESOLVER = DependencyResolver(shallow_traverse_to_gather, shallow_traverse_to_unwrap)
DEEP_DEPENDENCY_RESOLVER = DependencyResolver(deep_traverse_to_gather, deep_traverse_to_unwrap)
