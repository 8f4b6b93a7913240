"""What the script sees of a `map`: the function, and the results that it gives."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

from mpitask import codec, running
from mpitask.bulk.calls import Combine, CombinePieces, identity, item
from mpitask.bulk.cutting import Piece, Work, make_work
from mpitask.engine import Engine
from mpitask.errors import ConfigurationError, EngineClosedError, check_names, shown
from mpitask.futures import Future, Promise

T = TypeVar("T")

_AT_ONCE = 1024  # items of a map that may be submitted by the caller itself
_UNREAD = 16  # chunks that wait to be read, of an iterable without a length
_COMBINE_AT_A_TIME = 16
_NOTHING: Any = object()


class MapFuture(Generic[T]):
    """The results of a `map`. Any thread may call any method.

    `len()`, iteration (results in order, or as they come with `ordered=False`, while others are still being computed),
    `futures[i]`, `result()`, `cancel()`, `reduce()`.

    Results are kept as long as this object, but for those of an iterable without a length (a generator): once its
    iteration has begun, it is read only a little ahead of that, and what has been passed is given up. Leaving that
    iteration by `break` cancels the map, and so does the end of the script in the middle of it.
    """

    def __init__(self, engine: Engine, work: Work, *, ordered: bool, name: str | None = None) -> None:
        self._name = name  # of the function, for messages
        self._engine = engine
        self._work = work
        self._ordered = ordered
        self._state = threading.Condition()
        self._tasks: list[Piece] = []  # all that were submitted, in order
        self._ended: deque[Piece] = deque()  # those that have ended, in that order
        self._running = 0
        self._waiting = 0  # of them, those that tell when they have begun and have not
        self._fed = False
        self._cancelled = False
        self._failure: BaseException | None = None  # the iterable's own
        self._reduction: Callable[[T, T], T] | None = None
        self._is_endless = work.total is None
        self._passed: int | None = None  # pieces that the iteration has passed, once there is one
        self._open: Promise[None] | None = None  # the engine is not through before the last piece is submitted
        self._reader: threading.Thread | None = None  # who has taken results of an iterable without a length
        self._feeder: threading.Thread | None = None
        self._is_watched = False
        if work.total is None or work.total > _AT_ONCE or not self._feed_at_once():
            self._watch_all()
            self._open = engine.promise()
            engine.begin_feed(self)
            self._feeder = threading.Thread(target=self._feed, args=(self._open,), name="mpitask-map", daemon=True)
            self._feeder.start()

    # -- feeding --

    def _feed_at_once(self) -> bool:
        """Submits a short map in the thread that asks for it: whether that was all of it."""
        try:
            while len(self._tasks) < self._work.ahead:
                piece = self._work.submit(None)
                if piece is None:
                    self._fed = True
                    break
                self._tasks.append(piece)
                if piece.begun is not None:  # another may have to wait for that
                    break
        except BaseException as error:  # noqa: BLE001 - as in `_feed`
            self._failure, self._fed = error, True
        return self._fed

    def _watch_all(self) -> None:
        """Has the ends of pieces told. Of a short map nobody needs them, as a rule."""
        with self._state:
            if self._is_watched:
                return
            self._is_watched = True
        for piece in self._tasks:
            self._watch(piece, piece.task)

    def _watch(self, piece: Piece, task: Future[Any]) -> None:
        begun = piece.begun
        with self._state:
            self._running += 1
            self._waiting += begun is not None
        if begun is not None:
            begun.add_done_callback(self._piece_begun)
        task.add_done_callback(functools.partial(self._piece_ended, piece))

    def _feed(self, is_open: Promise[None]) -> None:
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
                task = piece.task  # a reader may pass the piece at once
                with self._state:
                    self._tasks.append(piece)
                    self._state.notify_all()
                self._engine.poke()
                self._watch(piece, task)
        except BaseException as error:  # noqa: BLE001 - the user's iterable, or an argument that cannot be pickled
            self._failure = error
        with self._state:
            self._fed = True
            self._state.notify_all()
        self._engine.poke()
        self._engine.end_feed(self)
        with contextlib.suppress(EngineClosedError):
            is_open.set_result(None)

    def _must_wait(self) -> bool:
        ahead = self._work.ahead
        if self._running >= ahead or self._waiting >= self._work.waiting:
            return True
        unread = len(self._tasks) - self._passed if self._is_endless and self._passed is not None else 0
        return unread >= _UNREAD + ahead

    def _piece_begun(self, _: Any) -> None:
        with self._state:
            self._waiting -= 1
            self._state.notify_all()

    def _piece_ended(self, piece: Piece, future: Any) -> None:
        with self._state:
            self._running -= 1
            begun, piece.begun = piece.begun, None
            self._ended.append(piece)
            if future.task_status() == "done":
                self._work.learn(piece, future)
            self._state.notify_all()
        if begun is not None and not begun.done():  # it was cancelled, or has failed
            with contextlib.suppress(EngineClosedError):
                begun.set_result(None)

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
        return itertools.chain.from_iterable(self._results(None))  # C code for each item, Python for each list of them

    def _results(self, deadline: float | None) -> Iterator[list[T]]:
        if not self._ordered:
            self._watch_all()
        with self._state:
            self._passed = self._passed or 0
        try:
            yield from self._pieces(deadline)
        except GeneratorExit:  # left by `break`
            if self._is_endless:
                self.cancel()
            raise
        if self._failure is not None:
            raise self._failure
        if self._cancelled:
            raise concurrent.futures.CancelledError(f"{self._text()} was cancelled")

    def _pieces(self, deadline: float | None) -> Iterator[list[T]]:
        for i in itertools.count():
            with self._state:
                arrived: Sequence[Piece] | deque[Piece] = self._tasks if self._ordered else self._ended
                while i >= len(arrived) and not (self._fed and (self._ordered or i >= len(self._tasks))):
                    self._wait(deadline)
                if i >= len(arrived):
                    break
                piece = arrived[i]
            if self._is_endless:
                self._reader = threading.current_thread()
            yield from piece.values(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if self._is_endless:
                with self._state:
                    piece.future = None
                    self._passed = i + 1
                    self._state.notify_all()

    def _wait(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError(f"{self._text()} has not ended within its timeout")
        self._engine.rest(self._state, 0.5 if left is None else min(left, 0.5))
        if self._feeder is not None and not self._feeder.is_alive() and not self._fed:
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
            raise concurrent.futures.CancelledError(f"{self._text()} was cancelled")
        found: list[T] = []
        for piece in self._tasks:
            for values in piece.values(None if deadline is None else max(0.0, deadline - time.monotonic())):
                found += values
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
        if self._open is not None:
            self._open.cancel()  # the iterable may never give another item
        return True

    def nobody_reads_on(self) -> None:
        """At the end of a script or a block: a map that waits for its reader, who waits here, is given up."""
        with self._state:
            reader = self._reader
            must_wait = self._is_endless and not self._fed and reader is not None
        if must_wait and (reader is threading.current_thread() or not (reader and reader.is_alive())):
            self.cancel()

    @property
    def futures(self) -> _Futures:
        """A sequence of futures, one for each item; each is made when it is asked for."""
        return _Futures(self)

    def _find(self, index: int) -> Piece:
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

        Raises:
            TypeError: `op` cannot be called.
        """
        if not callable(op):
            raise TypeError(f"reduce() calls its first argument for two results, and {shown(op)} cannot be called")
        with self._state:
            self._reduction = op
        out: Promise[Any] = self._engine.promise()
        threading.Thread(target=self._combine, args=(op, initial, out), name="mpitask-reduce", daemon=True).start()
        return out

    def _combine(self, op: Callable[[T, T], T], initial: Any, out: Promise[Any]) -> None:
        try:
            engine = self._engine
            combine, combine_pieces = Combine(op), CombinePieces(op)  # their ids are good while they are there
            whole = engine.function_id(combine)
            lowest = engine.function_id(combine_pieces)
            pieces: list[Piece] = []
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
                rest.insert(0, engine.call(engine.function_id(identity), (initial,), {}))
            if not rest:
                raise TypeError("reduce() of an empty map needs an initial value")
            last: Future[Any] = engine.call(whole, (rest,), {})
            last.add_done_callback(lambda _: out.forward(last))
        except BaseException as error:  # noqa: BLE001 - the reduction ends with it
            out.set_exception(error)

    def __repr__(self) -> str:
        with self._state:
            pieces = self._ended if self._is_watched else [piece for piece in self._tasks if piece.task.done()]
            done = sum(piece.stop - piece.first for piece in pieces)
            try:
                total: int | str = len(self)
            except TypeError:  # an iterable without a length, that has not been read to its end
                total = "?"
        return f"<mpitask.MapFuture{f' of {self._name}' if self._name else ''}: {done} of {total} items have ended>"

    def _text(self) -> str:
        return f"the map of {self._name}" if self._name else "the map"


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
        future: Future[Any] = engine.call(engine.function_id(item), (piece.task, index, piece.first), {})
        future._called = f"item {index} of {self._owner._text()}"
        return future


def map(  # noqa: A001 - the name that everybody knows, for the same thing
    fn: Callable[..., T],
    iterable: Iterable[Any],
    *iterables: Iterable[Any],
    chunksize: int | Literal["auto"] = "auto",
    ordered: bool = True,
    **unknown: Any,
) -> MapFuture[T]:
    """Calls `fn` for every item, on the workers.

    Args:
        fn: takes one item, or one of each iterable.
        iterable: a range, a sequence, or anything that can be iterated; a generator is read as workers get free.
            A range, or what `numpy.arange` gives, costs least: workers make the numbers.
        *iterables: further ones; the shortest counts.
        chunksize: items that a worker is given at a time; "auto": by what items turn out to take.
        ordered: whether iteration gives results in the order of the items, or as they come.
        **unknown: none; so that a misspelt name can be answered with the right one.

    Raises:
        NoEngineError: no engine is running.
        ConfigurationError: `chunksize` is not a number above 0 or "auto", or there is no such option.
        SerializationError: the function cannot be pickled.
        TypeError: `fn` cannot be called.
    """
    check_names("option of map()", unknown, ("chunksize", "ordered"))
    if not callable(fn):
        raise TypeError(f"map() calls its first argument for every item, and {shown(fn)} cannot be called")
    if not (isinstance(chunksize, str) and chunksize == "auto") and (
        not isinstance(chunksize, int) or isinstance(chunksize, bool) or chunksize < 1
    ):
        raise ConfigurationError(f"chunksize={shown(chunksize)}: give a number above 0, or 'auto'")
    engine = running.current()
    fn = getattr(fn, "__wrapped__", fn) if hasattr(fn, "kind") else fn  # an app stands for its function
    return MapFuture(
        engine, make_work(engine, fn, (iterable, *iterables), chunksize), ordered=ordered, name=codec.short_name(fn)
    )
