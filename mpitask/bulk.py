"""`map`: one function over many items, in chunks, with results as they arrive, and reduction on the workers.

A thread feeds the engine pieces of the items, a few ahead of the workers, so that neither a billion numbers nor an
endless generator fill the memory. There are two kinds of pieces:

- Items that a formula gives, those of a range, go as *spans* (`_Spans`): one task is a quarter of a second of work of
  all workers, and every rank cuts it for those below. What this costs the script does not grow with their number.
- Other items have to be pickled here. They go in chunks (`_Chunks`): one task is tens of milliseconds of one worker's
  work, and less towards the end, so that all workers finish together.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import functools
import itertools
import marshal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

from mpitask import codec
from mpitask import engine as _engine
from mpitask.engine import Engine
from mpitask.errors import ConfigurationError
from mpitask.futures import Future, Promise, result_bytes

T = TypeVar("T")

_CHUNK_S = 0.03
"""Work in a chunk: overheads of a task (10 us) vanish in it, and a worker's last chunk does not hold the others up."""
_FIRST_ITEMS = 16
_MOST_ITEMS = 1 << 20
_AHEAD = 3  # chunks for each worker: one that runs, one that waits at it, one under way
_SPAN_S = 0.25
"""Work of all workers in a span: results arrive several times a second."""
_SPANS_AHEAD = 3  # while one ends, the next are cut, and the script takes its time
_SPAN_BYTES = 64 << 20  # of results in a span, at most
_GROWTH = 16  # a span has so many times the items of the one before, at most
_UNREAD = 16  # chunks that wait to be read, of an iterable without a length
_COMBINE_AT_A_TIME = 16
_NOTHING: Any = object()


class MapFuture(Generic[T]):
    """The results of a `map`. Any thread may call any method.

    `len()`, iteration (results in order, or as they come with `ordered=False`, while others are still being computed),
    `futures[i]`, `result()`, `cancel()`, `reduce()`.

    Results are kept as long as this object, but for those of an iterable without a length (a generator): once its
    iteration has begun, it is read only a little ahead of that, and what has been passed is given up.
    """

    def __init__(self, engine: Engine, work: _Work, *, ordered: bool) -> None:
        self._engine = engine
        self._work = work
        self._ordered = ordered
        self._state = threading.Condition()
        self._tasks: list[_Piece] = []  # all that were submitted, in order
        self._ended: deque[_Piece] = deque()  # those that have ended, in that order
        self._running = 0
        self._fed = False
        self._cancelled = False
        self._failure: BaseException | None = None  # the iterable's own
        self._reduction: Callable[[T, T], T] | None = None
        self._is_endless = work.total is None
        self._passed: int | None = None  # pieces that the iteration has passed, once there is one
        self._open: Promise[None] = engine.promise()  # the engine is not through before the last piece is submitted
        self._feeder = threading.Thread(target=self._feed, name="mpitask-map", daemon=True)
        self._feeder.start()

    # -- feeding --

    def _feed(self) -> None:
        try:
            while True:
                with self._state:
                    while self._must_wait() and not self._cancelled:
                        self._state.wait()
                    if self._cancelled:
                        break
                    reduction = self._reduction
                piece = self._work.submit(reduction)
                if piece is None:
                    break
                with self._state:
                    self._tasks.append(piece)
                    self._running += 1
                    self._state.notify_all()
                self._engine.poke()
                piece.task.add_done_callback(functools.partial(self._piece_ended, piece))
        except BaseException as error:  # noqa: BLE001 - the user's iterable, or an argument that cannot be pickled
            self._failure = error
        with self._state:
            self._fed = True
            self._state.notify_all()
        self._engine.poke()
        self._open.set_result(None)

    def _must_wait(self) -> bool:
        ahead = self._work.ahead
        if self._running >= ahead:
            return True
        unread = len(self._tasks) - self._passed if self._is_endless and self._passed is not None else 0
        return unread >= _UNREAD + ahead

    def _piece_ended(self, piece: _Piece, future: Any) -> None:
        with self._state:
            self._running -= 1
            self._ended.append(piece)
            if not future.cancelled() and future.exception() is None:
                self._work.learn(piece, future)
            self._state.notify_all()

    # -- reading --

    def __len__(self) -> int:
        """Number of items.

        Raises:
            TypeError: the iterable has no length, and has not been read to its end.
        """
        with self._state:
            if self._work.total is not None:
                return self._work.total
            if self._fed and not self._cancelled:
                return self._tasks[-1].stop if self._tasks else 0
        raise TypeError("the length of this map is not known before its iterable has been read to its end")

    def __iter__(self) -> Iterator[T]:
        """Results one by one; raises what the function raised for an item, with the item's index in a note."""
        return self._results(None)

    def _results(self, deadline: float | None) -> Iterator[T]:
        with self._state:
            self._passed = self._passed or 0
        for i in itertools.count():
            with self._state:
                arrived: Sequence[_Piece] | deque[_Piece] = self._tasks if self._ordered else self._ended
                while i >= len(arrived) and not (self._fed and (self._ordered or i >= len(self._tasks))):
                    self._wait(deadline)
                if i >= len(arrived):
                    break
                piece = arrived[i]
            yield from piece.values(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if self._is_endless:
                with self._state:
                    piece.future = None
                    self._passed = i + 1
                    self._state.notify_all()
        if self._failure is not None:
            raise self._failure
        if self._cancelled:
            raise concurrent.futures.CancelledError("this map was cancelled")

    def _wait(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("the map has not ended within its timeout")
        self._engine.rest(self._state, 0.5 if left is None else min(left, 0.5))
        if not self._feeder.is_alive() and not self._fed:
            raise RuntimeError("the thread that feeds this map has died")

    def result(self, timeout: float | None = None) -> list[T]:
        """All results in order.

        Raises:
            TimeoutError: they are not there after `timeout` seconds.
            CancelledError: the map was cancelled.
            Exception: what the function raised for the first item that failed, with its index in a note.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._state:
            while not self._fed:
                self._wait(deadline)
        if self._failure is not None:
            raise self._failure
        if self._cancelled:
            raise concurrent.futures.CancelledError("this map was cancelled")
        found: list[T] = []
        for piece in self._tasks:
            found += piece.values(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return found

    def done(self) -> bool:
        """Whether all items have ended."""
        with self._state:
            return self._fed and self._all_ended()

    def _all_ended(self) -> bool:
        return len(self._ended) == len(self._tasks) or all(
            piece.future is None or piece.future.done() for piece in self._tasks
        )

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def cancel(self) -> bool:
        """Cancels what no worker has been given anything of; no further items are read. False: it had ended."""
        with self._state:
            if self._fed and self._all_ended():
                return False
            self._cancelled = True
            self._state.notify_all()
            tasks = list(self._tasks)
        for piece in tasks:
            if piece.future is not None:
                piece.future.cancel()
        return True

    @property
    def futures(self) -> _Futures:
        """A sequence of futures, one for each item; each is made when it is asked for."""
        return _Futures(self)

    def _find(self, index: int) -> _Piece:
        with self._state:
            while True:
                if self._tasks and self._tasks[-1].stop > index:
                    low, high = 0, len(self._tasks) - 1
                    while low < high:
                        middle = (low + high) // 2
                        low, high = (middle + 1, high) if self._tasks[middle].stop <= index else (low, middle)
                    return self._tasks[low]
                if self._fed:
                    raise IndexError(f"this map has no item {index}")
                self._wait(None)

    # -- reducing --

    def reduce(self, op: Callable[[T, T], T], initial: Any = _NOTHING) -> Future[T]:
        """The future of all results combined by `op`, which must be associative; the order is kept.

        Workers combine the results of what each of them is given, then those of a rank's workers, and so on up the
        tree, so the root sees few values. Ask for it right after `map`: what was submitted before is combined later.

        Args:
            op: takes two results (or earlier combinations) and gives one.
            initial: stands to the left of the first result; without it an empty map gives TypeError.
        """
        with self._state:
            self._reduction = op
        out: Promise[Any] = self._engine.promise()
        threading.Thread(target=self._combine, args=(op, initial, out), name="mpitask-reduce", daemon=True).start()
        return out

    def _combine(self, op: Callable[[T, T], T], initial: Any, out: Promise[Any]) -> None:
        try:
            engine = self._engine
            combine, combine_pieces = _Combine(op), _CombinePieces(op)  # their ids are good while they are there
            whole, lowest = engine.function_id(combine), engine.function_id(combine_pieces)
            pieces: list[_Piece] = []
            levels: list[list[Future[Any]]] = []

            def add(future: Future[Any], level: int) -> None:
                if level == len(levels):
                    levels.append([])
                levels[level].append(future)
                if len(levels[level]) == _COMBINE_AT_A_TIME:
                    group, levels[level] = levels[level], []
                    add(engine.call(whole, (group,), {}), level + 1)

            def add_pieces() -> None:
                if pieces:
                    firsts = [piece.first for piece in pieces]
                    add(engine.call(lowest, ([piece.task for piece in pieces], firsts), {}), 0)
                    pieces.clear()

            for i in itertools.count():
                with self._state:
                    while i >= len(self._tasks) and not self._fed:
                        self._wait(None)
                    if i >= len(self._tasks):
                        break
                    pieces.append(self._tasks[i])
                if len(pieces) == _COMBINE_AT_A_TIME:
                    add_pieces()
            add_pieces()
            if self._failure is not None:
                raise self._failure
            rest = [future for level in reversed(levels) for future in level]
            if initial is not _NOTHING:
                rest.insert(0, engine.call(engine.function_id(_identity), (initial,), {}))
            if not rest:
                raise TypeError("reduce() of an empty map needs an initial value")
            last = engine.call(whole, (rest,), {})
            last.add_done_callback(lambda _: out.forward(last))
        except BaseException as error:  # noqa: BLE001 - the reduction ends with it
            out.set_exception(error)

    def __repr__(self) -> str:
        with self._state:
            done = sum(piece.stop - piece.first for piece in self._ended)
            total = "?" if not self._fed and self._work.total is None else len(self)
        return f"<mpitask.MapFuture: {done} of {total} items have ended>"


class _Futures(Sequence[Future[Any]]):
    def __init__(self, owner: MapFuture[Any]) -> None:
        self._owner = owner

    def __len__(self) -> int:
        return len(self._owner)

    @overload
    def __getitem__(self, index: int) -> Future[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Future[Any]]: ...
    def __getitem__(self, index: int | slice) -> Future[Any] | list[Future[Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = index + len(self) if index < 0 else index
        piece = self._owner._find(index)
        engine = self._owner._engine
        return engine.call(engine.function_id(_item), (piece.task, index, piece.first), {})


class _Piece:
    """One task of a map: items first ... stop."""

    __slots__ = ("first", "future", "stop", "submitted_s")

    def __init__(self, first: int, stop: int, future: Future[Any]) -> None:
        self.first, self.stop = first, stop
        self.future: Future[Any] | None = future
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

    def values(self, timeout: float | None) -> Iterator[Any]:
        """The results; raises the first failure."""
        for first, packed in _packs(self.task.result(timeout), self.first):
            yield from _unpack(packed, first)


# What a worker gives for the items that it was given: seconds, the failures as (index among the items, exception), and
# the packed results, or their combination as the only one. The value of a chunk is one of them; that of a span is one
# if it was combined, and else a codec.Parts of them.
_Packed = tuple[float, list[tuple[int, bytes]], int, bytes]


def _pack(seconds: float, values: list[Any], failures: list[tuple[int, bytes]]) -> _Packed:
    if codec.SCALARS.issuperset(builtins.map(type, values)):
        return seconds, failures, codec.MARSHAL, marshal.dumps(values, 2)
    kind, parts = codec.encode(values)
    return seconds, failures, kind, b"".join(bytes(part) for part in parts)


def _packs(value: Any, first: int) -> Iterator[tuple[int, _Packed]]:
    """What a task of a map has given, each with the index of its first item. `first`: that of the task."""
    if not isinstance(value, codec.Parts):
        yield first, value
        return
    for start, packed in zip(value.starts, value, strict=True):
        yield first + start, packed


def _unpack(packed: _Packed, first: int) -> list[Any]:
    _, failures, kind, data = packed
    if failures:
        index, error = failures[0]
        raise _noted(error, first + index)
    found: list[Any] = codec.decode(kind, data)
    return found


def _noted(data: bytes, index: int) -> BaseException:
    error = codec.decode_exception(data)
    error.add_note(f"(item {index} of the map)")
    return error


# -- what workers run --


class _CallChunk:
    """The function over the items of a chunk. `op` combines their results."""

    def __init__(self, fn: Callable[..., Any], op: Callable[[Any, Any], Any] | None = None) -> None:
        self._fn, self._op = fn, op

    def __call__(self, items: Iterable[Any]) -> _Packed:
        start = time.perf_counter()
        values: list[Any] = []
        failures: list[tuple[int, bytes]] = []
        fn, add, rest = self._fn, values.append, iter(items)
        while True:
            try:
                for item in rest:
                    add(fn(item))
            except Exception as error:  # noqa: BLE001 - it is the item's result
                failures.append((len(values), codec.encode_exception(error)))
                add(None)
            else:
                break
        if self._op is not None and not failures:
            values = [functools.reduce(self._op, values)]
        return _pack(time.perf_counter() - start, values, failures)


class _CallSpan(_CallChunk):
    """The same over `count` items of a formula, from item `first` on."""

    def __call__(self, first: int, count: int, *formula: Any) -> _Packed:  # type: ignore[override]
        return super().__call__(_Formula(*formula).items(first, count))


class _Star:
    """A function of several iterables, over tuples of their items."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def __call__(self, items: tuple[Any, ...]) -> Any:
        return self._fn(*items)


class _CombineParts:
    """Of a span: makes one combination of several."""

    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self._op = op

    def __call__(self, parts: codec.Parts) -> _Packed:
        values: list[Any] = []
        for first, (_, failures, kind, data) in _packs(parts, 0):
            if failures:
                index, error = failures[0]
                return _pack(0.0, [None], [(first + index, error)])
            values += codec.decode(kind, data)
        return _pack(0.0, [functools.reduce(self._op, values)], [])


class _CombinePieces:
    """Of the tasks of a map, whose first items have the indexes `firsts`."""

    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self._op = op

    def __call__(self, pieces: list[Any], firsts: list[int]) -> Any:
        packs = itertools.chain.from_iterable(builtins.map(_packs, pieces, firsts))
        return functools.reduce(
            self._op, itertools.chain.from_iterable(_unpack(packed, first) for first, packed in packs)
        )


class _Combine:
    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self._op = op

    def __call__(self, values: list[Any]) -> Any:
        return functools.reduce(self._op, values)


def _identity(value: Any) -> Any:
    return value


def _item(value: Any, index: int, first: int) -> Any:
    if isinstance(value, codec.Parts):
        at = value.find(index - first)
        first, value = first + value.starts[at], value[at]
    _, failures, kind, data = value
    for at, error in failures:
        if first + at == index:
            raise _noted(error, index)
    return codec.decode(kind, data)[index - first]


class _Formula:
    """Items start, start + step, ...: integers, or numbers of the numpy type `dtype`."""

    def __init__(self, start: int, step: int, dtype: str) -> None:
        self.start, self.step, self.dtype = start, step, dtype

    @property
    def args(self) -> tuple[int, int, str]:
        """What it is made from."""
        return self.start, self.step, self.dtype

    def items(self, first: int, count: int) -> Any:
        """Items first ... first + count, a sequence."""
        if not self.dtype:
            return range(self.start + first * self.step, self.start + (first + count) * self.step, self.step)
        import numpy as np  # only for those whose items are numpy's

        word = 1 << 64  # arithmetic modulo 2^64 gives the right bits whatever the sign and the size
        numbers = np.arange(count, dtype=np.uint64) * np.uint64(self.step % word)
        return (numbers + np.uint64((self.start + first * self.step) % word)).astype(self.dtype)

    @classmethod
    def of(cls, items: Any) -> _Formula | None:
        """The formula of a range, or of a numpy array that is one; None: there is none."""
        if isinstance(items, range):
            return cls(items.start, items.step, "")
        if not _is_array(items) or items.ndim != 1 or items.dtype.kind not in "iu" or len(items) < 2:
            return None
        start = int(items[0])
        found = cls(start, int(items[1]) - start, items.dtype.str)
        if int(items[-1]) != start + found.step * (len(items) - 1):
            return None
        blocks = range(0, len(items), _BLOCK)
        same = (bool((found.items(at, len(block := items[at : at + _BLOCK])) == block).all()) for at in blocks)
        return found if all(same) else None


_BLOCK = 1 << 16


def _is_array(items: Any) -> bool:
    numpy = sys.modules.get("numpy")  # who has an array has imported it
    return numpy is not None and type(items) is numpy.ndarray and items.ndim > 0


# -- how items are cut --


class _Source:
    """Items to be taken, a number at a time."""

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self.left: int | None = None  # items that have not been taken, if that is known
        self.total: int | None = None
        only = iterables[0]
        if len(iterables) == 1 and (isinstance(only, list | tuple) or _is_array(only)):
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


class _Work(Protocol):
    """What a map has to do, and how it is cut into tasks. `submit` is called by the feeder, `learn` under the lock."""

    total: int | None
    """Items; None: not known."""

    @property
    def ahead(self) -> int:
        """Tasks that may be under way at a time."""

    def submit(self, op: Callable[[Any, Any], Any] | None) -> _Piece | None:
        """Submits the next task; None: no item is left. `op` combines results."""

    def learn(self, piece: _Piece, future: Future[Any]) -> None:
        """A task has given its value."""


class _Chunks:
    """Items that are pickled here. A task gets as many as given, or by what was measured."""

    def __init__(self, engine: Engine, fn: Callable[..., Any], source: _Source, size: int | Literal["auto"]) -> None:
        self.total = source.total
        self._engine, self._fn, self._source, self._size = engine, fn, source, size
        self._calls: dict[int, tuple[_CallChunk, int]] = {}  # by the id of `op`
        self._next = 0
        self._item_s = 0.0

    @property
    def ahead(self) -> int:
        """See `_Work`."""
        return _AHEAD * self._engine.max_workers

    def submit(self, op: Callable[[Any, Any], Any] | None) -> _Piece | None:
        """See `_Work`."""
        items = self._source.take(self._next_size(self._source.left))
        if not len(items):
            return None
        if id(op) not in self._calls:
            fn = _CallChunk(self._fn, op)
            self._calls[id(op)] = fn, self._engine.function_id(fn)
        first, self._next = self._next, self._next + len(items)
        return _Piece(first, self._next, self._engine.call(self._calls[id(op)][1], (items,), {}))

    def learn(self, piece: _Piece, future: Future[Any]) -> None:
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

    ahead = _SPANS_AHEAD

    def __init__(
        self, engine: Engine, fn: Callable[..., Any], formula: _Formula, total: int, chunk: int | Literal["auto"]
    ) -> None:
        self.total: int | None = total
        self._engine, self._fn, self._formula = engine, fn, formula
        self._chunk = 0 if chunk == "auto" else min(chunk, _MOST_CHUNK)
        self._calls: dict[int, tuple[_CallSpan, int, int]] = {}  # by the id of `op`
        self._left = total
        self._next = 0
        self._wanted = 0  # items; 0: nothing is known yet
        self._items, self._seconds = 0.0, 0.0  # what has been done in what time, fading
        self._last_end_s = 0.0

    def submit(self, op: Callable[[Any, Any], Any] | None) -> _Piece | None:
        """See `_Work`."""
        if self._left == 0:
            return None
        if id(op) not in self._calls:
            fn = _CallSpan(self._fn, op)
            combine = 0 if op is None else self._engine.combine_id(_CombineParts(op))
            self._calls[id(op)] = fn, self._engine.function_id(fn), combine
        _, call, combine = self._calls[id(op)]
        chunk = self._chunk or 1
        count = max(self._wanted, self._engine.max_workers * chunk)  # never fewer, or some workers would have nothing
        count = min(-(-count // chunk) * chunk, self._left)
        first, self._next, self._left = self._next, self._next + count, self._left - count
        args = self._formula.args
        future = self._engine.call_span(call, first, count, args, combine=combine, chunk=self._chunk)
        return _Piece(first, self._next, future)

    def learn(self, piece: _Piece, future: Future[Any]) -> None:
        """How many items a second all workers do while they have enough to do."""
        count, now = piece.stop - piece.first, time.monotonic()
        self._seconds = self._seconds / 2 + max(now - max(self._last_end_s, piece.submitted_s), 1e-6)
        self._items = self._items / 2 + count
        self._last_end_s = now
        wanted = min(int(self._items / self._seconds * _SPAN_S), _GROWTH * count)
        self._wanted = min(wanted, int(_SPAN_BYTES * count / max(1, result_bytes(future))))


_MOST_CHUNK = (1 << 31) - 1


def map(  # noqa: A001 - the name that everybody knows, for the same thing
    fn: Callable[..., T],
    iterable: Iterable[Any],
    *iterables: Iterable[Any],
    chunksize: int | Literal["auto"] = "auto",
    ordered: bool = True,
) -> MapFuture[T]:
    """Calls `fn` for every item, on the workers.

    Args:
        fn: takes one item, or one of each iterable.
        iterable: a range, a sequence, or anything that can be iterated; a generator is read as workers get free.
            A range, or what `numpy.arange` gives, costs least: workers make the numbers.
        *iterables: further ones; the shortest counts.
        chunksize: items that a worker is given at a time; "auto": by what items turn out to take.
        ordered: whether iteration gives results in the order of the items, or as they come.

    Raises:
        NoEngineError: no engine is running.
        ConfigurationError: `chunksize` is not a number above 0 or "auto".
        SerializationError: the function cannot be pickled.
    """
    if chunksize != "auto" and (not isinstance(chunksize, int) or isinstance(chunksize, bool) or chunksize < 1):
        raise ConfigurationError(f"chunksize={chunksize!r}: give a number above 0, or 'auto'")
    engine = _engine.current()
    fn = getattr(fn, "__wrapped__", fn) if hasattr(fn, "kind") else fn  # an app stands for its function
    engine.function_id(fn)  # one that cannot be pickled is told of here
    formula = None if iterables else _Formula.of(iterable)
    work: _Work
    if formula is not None:
        work = _Spans(engine, fn, formula, len(iterable), chunksize)  # type: ignore[arg-type]
    else:
        called: Any = _Star(fn) if iterables else fn
        work = _Chunks(engine, called, _Source((iterable, *iterables)), chunksize)
    return MapFuture(engine, work, ordered=ordered)
