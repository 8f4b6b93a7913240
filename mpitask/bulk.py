"""`map`: one function over many items, in chunks, with results as they arrive, and reduction on the workers.

The items are cut into chunks, each of which is one task. Chunks get as long as is good (`_Chunks`): tens of
milliseconds of work, but shorter ones towards the end, so that all workers finish together. A thread feeds the engine a
few chunks ahead of the workers, so that neither a billion numbers nor an endless generator fill the memory.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import functools
import itertools
import marshal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

from mpitask import codec
from mpitask import engine as _engine
from mpitask.engine import Engine
from mpitask.errors import ConfigurationError
from mpitask.futures import Future, Promise

T = TypeVar("T")

_CHUNK_S = 0.03
"""Work in a chunk: overheads of a task (10 us) vanish in it, and a worker's last chunk does not hold the others up."""
_FIRST_ITEMS = 16
_MOST_ITEMS = 1 << 20
_AHEAD = 3  # chunks for each worker: one that runs, one that waits at it, one under way
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

    def __init__(
        self, engine: Engine, fn: Callable[..., T], source: _Source, chunks: _Chunks, *, ordered: bool
    ) -> None:
        self._engine = engine
        self._fn = fn
        self._source = source
        self._chunks = chunks
        self._ordered = ordered
        self._state = threading.Condition()
        self._tasks: list[_Chunk] = []  # all that were submitted, in order
        self._ended: deque[_Chunk] = deque()  # those that have ended, in that order
        self._running = 0
        self._fed = False
        self._cancelled = False
        self._failure: BaseException | None = None  # the iterable's own
        self._reduction: Callable[[T, T], T] | None = None
        self._is_endless = source.left is None
        self._passed: int | None = None  # chunks that the iteration has passed, once there is one
        self._open: Promise[None] = engine.promise()  # the engine is not through before the last chunk is submitted
        self._feeder = threading.Thread(target=self._feed, name="mpitask-map", daemon=True)
        self._feeder.start()

    # -- feeding --

    def _feed(self) -> None:
        fn = _CallChunk(self._fn)
        call = self._engine.function_id(fn)
        try:
            while True:
                with self._state:
                    while self._must_wait() and not self._cancelled:
                        self._state.wait()
                    if self._cancelled:
                        break
                    reduction = self._reduction
                if reduction is not None and fn.op is not reduction:
                    fn = _CallChunk(self._fn, reduction)
                    call = self._engine.function_id(fn)
                items = self._source.take(self._chunks.next_size(self._source.left))
                if not len(items):
                    break
                self._submit(call, items, is_reduced=reduction is not None)
        except BaseException as error:  # noqa: BLE001 - the user's iterable, or an argument that cannot be pickled
            self._failure = error
        with self._state:
            self._fed = True
            self._state.notify_all()
        self._engine.poke()
        self._open.set_result(None)

    def _must_wait(self) -> bool:
        if self._running >= self._chunks.ahead:
            return True
        unread = len(self._tasks) - self._passed if self._is_endless and self._passed is not None else 0
        return unread >= _UNREAD + self._chunks.ahead

    def _submit(self, call: int, items: Sequence[Any], *, is_reduced: bool) -> None:
        first = self._tasks[-1].stop if self._tasks else 0
        future = self._engine.call(call, (items,), {})
        chunk = _Chunk(first, first + len(items), future, is_reduced)
        with self._state:
            self._tasks.append(chunk)
            self._running += 1
            self._state.notify_all()
        self._engine.poke()
        future.add_done_callback(functools.partial(self._chunk_ended, chunk))

    def _chunk_ended(self, chunk: _Chunk, future: concurrent.futures.Future[Any]) -> None:
        with self._state:
            self._running -= 1
            self._ended.append(chunk)
            if not future.cancelled() and future.exception() is None:
                self._chunks.learn(chunk.stop - chunk.first, float(future.result()[0]))
            self._state.notify_all()

    # -- reading --

    def __len__(self) -> int:
        """Number of items.

        Raises:
            TypeError: the iterable has no length, and has not been read to its end.
        """
        with self._state:
            if self._source.total is not None:
                return self._source.total
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
                arrived: Sequence[_Chunk] | deque[_Chunk] = self._tasks if self._ordered else self._ended
                while i >= len(arrived) and not (self._fed and (self._ordered or i >= len(self._tasks))):
                    self._wait(deadline)
                if i >= len(arrived):
                    break
                chunk = arrived[i]
            yield from chunk.values(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if self._is_endless:
                with self._state:
                    chunk.future = None
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
        for chunk in self._tasks:
            found += chunk.values(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return found

    def done(self) -> bool:
        """Whether all items have ended."""
        with self._state:
            return self._fed and self._all_ended()

    def _all_ended(self) -> bool:
        return len(self._ended) == len(self._tasks) or all(
            chunk.future is None or chunk.future.done() for chunk in self._tasks
        )

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def cancel(self) -> bool:
        """Cancels what has not been sent to a worker; no further items are read. False: it had ended."""
        with self._state:
            if self._fed and self._all_ended():
                return False
            self._cancelled = True
            self._state.notify_all()
            tasks = list(self._tasks)
        for chunk in tasks:
            if chunk.future is not None:
                chunk.future.cancel()
        return True

    @property
    def futures(self) -> _Futures:
        """A sequence of futures, one for each item; each is made when it is asked for."""
        return _Futures(self)

    def _find(self, index: int) -> _Chunk:
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

        Workers combine the results of each chunk and then those of chunks, so that the root sees few values.

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
            combine, combine_chunk = _Combine(op), _CombineChunk(op)
            whole, part = engine.function_id(combine), engine.function_id(combine_chunk)
            levels: list[list[Future[Any]]] = [[]]

            def add(future: Future[Any], level: int) -> None:
                if level == len(levels):
                    levels.append([])
                levels[level].append(future)
                if len(levels[level]) == _COMBINE_AT_A_TIME:
                    group, levels[level] = levels[level], []
                    add(engine.call(whole, (group,), {}), level + 1)

            for i in itertools.count():
                with self._state:
                    while i >= len(self._tasks) and not self._fed:
                        self._wait(None)
                    if i >= len(self._tasks):
                        break
                    chunk = self._tasks[i]
                add(engine.call(part, (chunk.task, chunk.is_reduced, chunk.first), {}), 0)
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
            done = sum(chunk.stop - chunk.first for chunk in self._ended)
            total = "?" if not self._fed and self._source.total is None else len(self)
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
        chunk = self._owner._find(index + len(self) if index < 0 else index)
        engine = self._owner._engine
        at = (index + len(self) if index < 0 else index) - chunk.first
        return engine.call(engine.function_id(_item), (chunk.task, at, chunk.first), {})


class _Chunk:
    """One task of a map: items first ... stop."""

    __slots__ = ("first", "future", "is_reduced", "stop")

    def __init__(self, first: int, stop: int, future: Future[Any], is_reduced: bool) -> None:
        self.first, self.stop, self.is_reduced = first, stop, is_reduced
        self.future: Future[Any] | None = future

    @property
    def task(self) -> Future[Any]:
        """Its task.

        Raises:
            RuntimeError: the iteration has passed it.
        """
        if self.future is None:
            raise RuntimeError("the results of an iterable without a length can be read once: make a list of them")
        return self.future

    def values(self, timeout: float | None) -> list[Any]:
        """The results; raises the first failure."""
        return _unpack(self.task.result(timeout), self.first)


# What the task of a chunk gives: seconds, the failures as (index in the chunk, exception), and the packed results.
_Packed = tuple[float, list[tuple[int, bytes]], int, bytes]


def _pack(seconds: float, values: list[Any], failures: list[tuple[int, bytes]]) -> _Packed:
    if codec.SCALARS.issuperset(builtins.map(type, values)):
        return seconds, failures, codec.MARSHAL, marshal.dumps(values, 2)
    kind, parts = codec.encode(values)
    return seconds, failures, kind, b"".join(bytes(part) for part in parts)


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
    """The function over the items of a chunk: (seconds, results, failures), or the combined result in a list."""

    def __init__(self, fn: Callable[..., Any], op: Callable[[Any, Any], Any] | None = None) -> None:
        self._fn, self.op = fn, op

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
        if self.op is not None and not failures:
            values = [functools.reduce(self.op, values)]
        return _pack(time.perf_counter() - start, values, failures)


class _Star:
    """A function of several iterables, over tuples of their items."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def __call__(self, items: tuple[Any, ...]) -> Any:
        return self._fn(*items)


class _CombineChunk:
    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self._op = op

    def __call__(self, chunk: _Packed, is_reduced: bool, first: int) -> Any:
        values = _unpack(chunk, first)
        return values[0] if is_reduced else functools.reduce(self._op, values)


class _Combine:
    def __init__(self, op: Callable[[Any, Any], Any]) -> None:
        self._op = op

    def __call__(self, values: list[Any]) -> Any:
        return functools.reduce(self._op, values)


def _identity(value: Any) -> Any:
    return value


def _item(chunk: _Packed, index: int, first: int) -> Any:
    _, failures, kind, data = chunk
    for at, error in failures:
        if at == index:
            raise _noted(error, first + index)
    return codec.decode(kind, data)[index]


# -- how items are cut --


class _Source:
    """Items to be taken, a number at a time."""

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self.left: int | None = None  # items that have not been taken, if that is known
        self.total: int | None = None
        only = iterables[0]
        if len(iterables) == 1 and isinstance(only, range | list | tuple):
            self._items: Sequence[Any] | None = only
            self._at = 0
            self.total = self.left = len(only)
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
            self.left = max(0, self.left - len(found)) if found else 0
        return found


class _Chunks:
    """How many items the next chunk gets: as given, or by what was measured."""

    def __init__(self, size: int | Literal["auto"], workers: Callable[[], int]) -> None:
        self._size = size
        self._workers = workers
        self._item_s = 0.0

    @property
    def ahead(self) -> int:
        return _AHEAD * self._workers()

    def learn(self, n: int, seconds: float) -> None:
        """What a chunk took; later ones count as much as all before."""
        item_s = max(seconds / n, 1e-9)
        self._item_s = item_s if self._item_s == 0 else (self._item_s + item_s) / 2

    def next_size(self, left: int | None) -> int:
        if self._size != "auto":
            return self._size
        wanted = _FIRST_ITEMS if self._item_s == 0 else int(_CHUNK_S / self._item_s)
        if left is not None:  # the last chunks are shorter, so that all workers end at about the same time
            wanted = min(wanted, -(-left // (2 * self._workers())))
        return max(1, min(wanted, _MOST_ITEMS))


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
        *iterables: further ones; the shortest counts.
        chunksize: items in a task; "auto": by what items turn out to take.
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
    called: Any = _Star(fn) if iterables else fn
    source = _Source((iterable, *iterables))
    return MapFuture(engine, called, source, _Chunks(chunksize, lambda: engine.max_workers), ordered=ordered)
