"""What the workers of a `map` run, what they give, and how that is read."""

from __future__ import annotations

import contextlib
import functools
import itertools
import marshal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mpitask import codec
from mpitask.bulk.formula import Formula

# What a worker gives for the items that it was given: seconds, the failures as (index among the items, exception), and
# the packed results, or their combination as the only one. The value of a chunk is one of them; that of a span is one
# if it was combined, and else a codec.Parts of them. Results that are all None are packed as their number.
Packed = tuple[float, list[tuple[int, bytes]], int, bytes]


def _pack(seconds: float, values: list[Any], failures: list[tuple[int, bytes]]) -> Packed:
    if values and values[0] is None and _are_all_none(values):
        return seconds, failures, codec.NONE, marshal.dumps(len(values), 2)
    kinds = list(map(type, values))
    are_alike = bool(kinds) and kinds[0] in codec.SCALARS and kinds.count(kinds[0]) == len(kinds)  # faster than the set
    if are_alike or codec.SCALARS.issuperset(kinds):
        with contextlib.suppress(ValueError):  # one of 2 GiB and more
            return seconds, failures, codec.MARSHAL, marshal.dumps(values, 2)
    kind, parts = codec.encode(values)
    return seconds, failures, kind, b"".join(bytes(part) for part in parts)


def _are_all_none(values: list[Any]) -> bool:
    """In a third of the time that a look at each type takes. Equality is the values' own, so marshal has the last word.

    Of what it knows and what is equal to None, only None is one byte.
    """
    try:
        return values.count(None) == len(values) == len(marshal.dumps(values, 2)) - len(marshal.dumps([], 2))
    except Exception:  # noqa: BLE001 - values may refuse to be compared, and marshal to take them
        return False


def _unpack(kind: int, data: bytes) -> list[Any]:
    if kind == codec.NONE:
        return [None] * marshal.loads(data)
    found: list[Any] = codec.decode(kind, data)
    return found


def packs(value: Any, first: int) -> Iterator[tuple[int, Packed]]:
    """What a task of a map has given, each with the index of its first item. `first`: that of the task."""
    if not isinstance(value, codec.Parts):
        yield first, value
        return
    for start, packed in zip(value.starts, value, strict=True):
        yield first + start, packed


def unpack(packed: Packed, first: int) -> list[Any]:
    """The results, from item `first` on; raises the first failure."""
    _, failures, kind, data = packed
    if failures:
        index, error = failures[0]
        raise _noted(error, first + index)
    return _unpack(kind, data)


def _noted(data: bytes, index: int) -> BaseException:
    error = codec.decode_exception(data)
    error.add_note(f"(item {index} of the map)")
    return error


# -- what workers run --


class CallChunk:
    """The function over the items of a chunk. `op` combines their results."""

    WRAPS = ("_fn",)

    def __init__(self, fn: Callable[..., Any], op: Callable[[Any, Any], Any] | None = None) -> None:
        self._fn, self._op = fn, op

    def __call__(self, items: Iterable[Any]) -> Packed:
        """What failed is no failure of the task."""
        start = time.perf_counter()
        values: list[Any] = []
        failures: list[tuple[int, bytes]] = []
        fn, add, rest = self._fn, values.append, iter(items)
        while True:
            try:
                for item in rest:  # not extend(map()), for which a StopIteration of the function is the end
                    add(fn(item))
            except BaseException as error:  # noqa: BLE001 - it is the item's result
                failures.append((len(values), codec.encode_exception(error)))
                add(None)
            else:
                break
        if self._op is not None and not failures:
            values = [functools.reduce(self._op, values)]
        return _pack(time.perf_counter() - start, values, failures)


class CallSpan(CallChunk):
    """The same over `count` items of a formula, from item `first` on."""

    def __call__(self, first: int, count: int, *formula: Any) -> Packed:  # type: ignore[override]
        """`formula`: its `args`."""
        return super().__call__(Formula(*formula).items(first, count))


class Star:
    """A function of several iterables, over tuples of their items."""

    WRAPS = ("_fn",)

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def __call__(self, items: tuple[Any, ...]) -> Any:
        """One of each iterable."""
        return self._fn(*items)


class CombineParts:
    """Of a span: makes one combination of several."""

    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self._op = op

    def __call__(self, parts: codec.Parts) -> Packed:
        """As if one worker had been given all of it."""
        values: list[Any] = []
        for first, (_, failures, kind, data) in packs(parts, 0):
            if failures:
                index, error = failures[0]
                return _pack(0.0, [None], [(first + index, error)])
            values += _unpack(kind, data)
        return _pack(0.0, [functools.reduce(self._op, values)], [])


class CombinePieces:
    """Of the tasks of a map, whose first items have the indexes `firsts`."""

    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self._op = op

    def __call__(self, pieces: list[Any], firsts: list[int]) -> Any:
        """Raises the first failure."""
        packed = itertools.chain.from_iterable(map(packs, pieces, firsts))
        return functools.reduce(self._op, itertools.chain.from_iterable(unpack(one, first) for first, one in packed))


class Combine:
    """Of combinations."""

    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self._op = op

    def __call__(self, values: list[Any]) -> Any:
        """In their order."""
        return functools.reduce(self._op, values)


def identity(value: Any) -> Any:
    """The value: makes a task of it."""
    return value


def item(value: Any, index: int, first: int) -> Any:
    """The result for item `index`, out of what the task has given that begins with item `first`."""
    if isinstance(value, codec.Parts):
        at = value.find(index - first)
        first, value = first + value.starts[at], value[at]
    _, failures, kind, data = value
    for at, error in failures:
        if first + at == index:
            raise _noted(error, index)
    return _unpack(kind, data)[index - first]
