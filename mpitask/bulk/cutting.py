"""How the items of a `map` become tasks of the engine, in one of two ways.

- Items that a formula gives, those of a range, go as *spans* (`_Spans`): one task is a quarter of a second of work of
  all workers, and every rank cuts it for those below. What this costs the script does not grow with their number.
- Other items have to be pickled here. They go in chunks (`_Chunks`): one task is tens of milliseconds of one worker's
  work, and less towards the end, so that all workers finish together.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol

from mpitask.bulk.calls import CallChunk, CallSpan, CombineParts, Star, packs, unpack
from mpitask.bulk.formula import Formula, is_array
from mpitask.engine import Engine
from mpitask.futures import Future, Promise, result_bytes
from mpitask.native import ffi, lib

_CHUNK_S = 0.03
"""Work in a chunk: overheads of a task (10 us) vanish in it, and a worker's last chunk does not hold the others up."""
_FIRST_ITEMS = 16
_MOST_ITEMS = 1 << 20
_AHEAD = 3  # chunks for each worker: one that runs, one that waits at it, one under way
_MOST_CHUNK = (1 << 31) - 1


class Piece:
    """One task of a map: items first ... stop."""

    __slots__ = ("begun", "first", "future", "stop", "submitted_s")

    def __init__(self, first: int, stop: int, future: Future[Any], begun: Promise[None] | None = None) -> None:
        self.first, self.stop = first, stop
        self.future: Future[Any] | None = future
        self.begun = begun  # ends when the engine has sent all items
        self.submitted_s = time.monotonic()

    @property
    def task(self) -> Future[Any]:
        """Its task.

        Raises:
            RuntimeError: the iteration has passed it.
        """
        if self.future is None:
            raise RuntimeError("the results of an iterable without a length can be read once: make a list of them")
        return self.future

    def values(self, timeout: float | None) -> Iterator[list[Any]]:
        """The results, in lists; raises the first failure."""
        for first, packed in packs(self.task.result(timeout), self.first):
            yield unpack(packed, first)


class Work(Protocol):
    """What a map has to do, and how it is cut into tasks. `submit` is called by the feeder, `learn` under the lock."""

    total: int | None
    """Items; None: not known."""

    @property
    def ahead(self) -> int:
        """Tasks that may be under way at a time."""

    waiting: int
    """Tasks that may wait at a time, of those that tell when they have begun."""

    def submit(self, op: Callable[[Any, Any], Any] | None) -> Piece | None:
        """Submits the next task; None: no item is left. `op` combines results."""

    def learn(self, piece: Piece, future: Future[Any]) -> None:
        """A task has given its value."""


class _Source:
    """Items to be taken, a number at a time."""

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self.left: int | None = None  # items that have not been taken, if that is known
        self.total: int | None = None
        only = iterables[0]
        if len(iterables) == 1 and (isinstance(only, list | tuple) or is_array(only)):
            self._items: Any = only
            self._at = 0
            self.total = self.left = len(only)  # type: ignore[arg-type]
            return
        self._items = None
        if all(hasattr(iterable, "__len__") for iterable in iterables):
            self.total = self.left = min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
        self._rest = iter(only) if len(iterables) == 1 else zip(*iterables, strict=False)

    def take(self, n: int) -> Sequence[Any]:
        """The next n items, or fewer at the end."""
        if self._items is not None:
            found: Sequence[Any] = self._items[self._at : self._at + n]
            self._at += len(found)
        else:
            found = list(itertools.islice(self._rest, n))
        if self.left is not None:
            self.left = max(0, self.left - len(found)) if len(found) > 0 else 0
        return found


_KEPT = 16
_kept: weakref.WeakKeyDictionary[Engine, dict[tuple[type, int], tuple[Callable[..., Any], Any, int]]]
_kept = weakref.WeakKeyDictionary()
"""For the functions of the latest maps what workers call for them, which they then have already."""


def _call_for(engine: Engine, kind: type, fn: Callable[..., Any]) -> tuple[Any, int]:
    """`kind(fn, None)` and its id.

    It is made for each map, so that workers get the function as it is then; but for one that refers to nothing that can
    change, only once.
    """
    kept = _kept.setdefault(engine, {})
    known = kept.get((kind, id(fn)))
    if known is not None and known[0] is fn:
        return known[1:]
    call = kind(fn, None)
    number = engine.function_id(call)
    if engine.check_of(call) is None:
        kept[kind, id(fn)] = fn, call, number
        with contextlib.suppress(RuntimeError, StopIteration):  # another thread has just changed it
            while len(kept) > _KEPT:
                kept.pop(next(iter(kept)), None)
    return call, number


class _Chunks:
    """Items that are pickled here. A task gets as many as given, or by what was measured."""

    waiting = 1

    def __init__(self, engine: Engine, fn: Callable[..., Any], source: _Source, size: int | Literal["auto"]) -> None:
        self.total = source.total
        self._engine, self._fn, self._source, self._size = engine, fn, source, size
        self._calls: dict[int, tuple[CallChunk, int]] = {}  # by the id of `op`
        self._next = 0
        self._item_s = 0.0
        self._call_of(None)  # a function that cannot be pickled is told of here

    def _call_of(self, op: Callable[[Any, Any], Any] | None) -> int:
        if id(op) not in self._calls:
            if op is None:
                self._calls[id(op)] = _call_for(self._engine, CallChunk, self._fn)
            else:
                fn = CallChunk(self._fn, op)
                self._calls[id(op)] = fn, self._engine.function_id(fn)
        return self._calls[id(op)][1]

    @property
    def ahead(self) -> int:
        """See `Work`."""
        return _AHEAD * self._engine.max_workers

    def submit(self, op: Callable[[Any, Any], Any] | None) -> Piece | None:
        """See `Work`."""
        items = self._source.take(self._next_size(self._source.left))
        if not len(items):
            return None
        first, self._next = self._next, self._next + len(items)
        return Piece(first, self._next, self._engine.call(self._call_of(op), (items,), {}))

    def learn(self, piece: Piece, future: Future[Any]) -> None:
        """What a chunk took; later ones count as much as all before."""
        seconds = float(future.result()[0])
        item_s = max(seconds / (piece.stop - piece.first), 1e-9)
        self._item_s = item_s if self._item_s == 0 else (self._item_s + item_s) / 2

    def _next_size(self, left: int | None) -> int:
        if self._size != "auto":
            return self._size
        wanted = _FIRST_ITEMS if self._item_s == 0 else int(_CHUNK_S / self._item_s)
        if left is not None:  # the last chunks are shorter, so that all workers end at about the same time
            wanted = min(wanted, -(-left // (2 * self._engine.max_workers)))
        return max(1, min(wanted, _MOST_ITEMS))


class _Spans:
    """Items of a formula. A task gets as many as all workers together compute in a quarter of a second."""

    ahead, waiting = lib.MT_PACE_UNDER_WAY, lib.MT_PACE_WAITING

    def __init__(
        self, engine: Engine, fn: Callable[..., Any], formula: Formula, total: int, chunk: int | Literal["auto"]
    ) -> None:
        self.total: int | None = total
        self._engine, self._fn, self._formula = engine, fn, formula
        self._chunk = 0 if chunk == "auto" else min(chunk, _MOST_CHUNK)
        self._calls: dict[int, tuple[CallSpan, CombineParts | None, int, int]] = {}  # by the id of `op`
        self._pace = ffi.new("mt_pace *", {"left": total, "chunk": self._chunk or 1})
        self._lock = threading.Lock()  # of the pace: pieces end in other threads than the one that submits them
        self._next = 0
        self._call_of(None)  # as in _Chunks

    def _call_of(self, op: Callable[[Any, Any], Any] | None) -> tuple[int, int]:
        if id(op) not in self._calls:
            if op is None:
                fn, number = _call_for(self._engine, CallSpan, self._fn)
                self._calls[id(op)] = fn, None, number, 0
            else:
                fn, combiner = CallSpan(self._fn, op), CombineParts(op)
                combine = self._engine.combine_id(combiner)
                self._calls[id(op)] = fn, combiner, self._engine.function_id(fn), combine
        return self._calls[id(op)][2:]

    def submit(self, op: Callable[[Any, Any], Any] | None) -> Piece | None:
        """See `Work`."""
        if self._pace.left == 0:
            return None
        call, combine = self._call_of(op)
        with self._lock:
            count = lib.mt_pace_take(self._pace, self._engine.max_workers)
            is_last = self._pace.left == 0
        first, self._next = self._next, self._next + count
        begun: Promise[None] | None = None if is_last else self._engine.promise()  # then the next one is submitted
        args = self._formula.args
        future = self._engine.call_span(call, first, count, args, combine=combine, chunk=self._chunk, begun=begun)
        return Piece(first, self._next, future, begun)

    def learn(self, piece: Piece, future: Future[Any]) -> None:
        """How many items a second all workers do while they have enough to do."""
        count, now_s = piece.stop - piece.first, time.monotonic()
        with self._lock:
            lib.mt_pace_learn(self._pace, count, piece.submitted_s, now_s, result_bytes(future))


def make_work(
    engine: Engine, fn: Callable[..., Any], iterables: tuple[Iterable[Any], ...], chunk: int | Literal["auto"]
) -> Work:
    """How `fn` is to be called for the items of `iterables`; `chunk`: items that a worker is given at a time."""
    only = iterables[0]
    formula = Formula.of(only) if len(iterables) == 1 else None
    if formula is not None:
        return _Spans(engine, fn, formula, len(only), chunk)  # type: ignore[arg-type]
    return _Chunks(engine, fn if len(iterables) == 1 else Star(fn), _Source(iterables), chunk)
