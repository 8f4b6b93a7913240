"""Plain calls: one task of the engine each, and nothing else while nobody asks for more.

What Parsl promises of every call is kept: its record is made when it is asked for, states and counts are read from the
core, a failure is written to the log when it is first seen. The kernel has no part in it, and no thread is woken.

A call is plain if nobody has to hear of its steps: no cache, retries, retry handler, hooks or listener at the level
DEBUG, no resolver of the script's own, no files, streams, walltime or resources, and all executors that may run it
are simply the engine. Everything else is the kernel's.

A future that its script lets go before it has ended is kept until then: `wait_for_current_tasks` waits for it, and its
failure is told.

Thread rule: any thread may call any method; finalizers of futures take no lock.
"""

from __future__ import annotations

import collections
import datetime
import logging
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpitask import errors
from mpitask.compat.parsl.dataflow._kernel import as_lost, has_left, with_failures
from mpitask.compat.parsl.dataflow.states import FINAL_FAILURE_STATES, FINAL_STATES, States
from mpitask.compat.parsl.log_utils import heard
from mpitask.dataflow import AppFuture, TaskRecord, walk
from mpitask.engine import Engine
from mpitask.files import File
from mpitask.futures import DataFuture, name_of
from mpitask.native import lib
from mpitask.submission import goes_flat

if TYPE_CHECKING:
    from mpitask.compat.parsl.app.app import AppBase

_log = logging.getLogger("parsl")

_STATES = {
    lib.MT_WAITING: States.pending,
    lib.MT_READY: States.launched,
    lib.MT_ASSIGNED: States.launched,
    lib.MT_DONE: States.exec_done,
    lib.MT_FAILED: States.failed,
    lib.MT_DEPENDENCY_FAILED: States.dep_fail,
    lib.MT_CANCELLED: States.cancelled,
}
_DONE, _FIRST_FINAL = lib.MT_DONE, lib.MT_FIRST_FINAL
_state_of, _release = lib.mt_driver_state, lib.mt_driver_release

_KERNELS = frozenset({"outputs", "stdout", "stderr", "walltime", "_parsl_staging_inhibit"})
_LOOKED_AT = frozenset({"inputs", "parsl_resource_specification"})
_FILES = (File, DataFuture)
_FEW = 1024


class PlainFuture(AppFuture):
    """The future of a plain call."""

    __slots__ = ("_args", "_binding", "_kwargs", "_made_s")
    _args: tuple[Any, ...]
    _binding: Binding
    _kwargs: dict[str, Any]
    _made_s: float

    # what only some of them have, in their __dict__
    _is_counted = False
    _is_told = False
    _guard: _Guard | None = None
    _record: TaskRecord | None = None
    _failure: BaseException | None = None
    _outputs_made: list[DataFuture] | None = None

    def __del__(self) -> None:
        handle = self._handle
        state = _state_of(handle)
        binding = getattr(self, "_binding", None)  # None: interrupted while it was made
        if state == _DONE:
            if binding is not None and not self._is_counted:
                binding.plain.ended[state] += 1
        elif binding is not None and binding.plain.keep(self, handle, state):
            return
        _release(self._engine._driver, handle)

    @property
    def outputs(self) -> list[DataFuture]:  # type: ignore[override]
        """No files."""
        if self._outputs_made is None:
            self._outputs_made = []
        return self._outputs_made

    @property
    def task_record(self) -> TaskRecord:  # type: ignore[override]
        """What Parsl keeps of a call, as it is now."""
        record = self._record
        if record is None:
            with _records_lock:
                record = self._record
                if record is None:
                    record = self._record = _record_of(self)
        return record

    def task_status(self) -> str:
        """The state in words."""
        return _STATES[_state_of(self._handle)]

    def _error(self, raw: Any) -> BaseException:
        known = self._failure
        if known is None:
            known = self.__dict__.setdefault("_failure", self._binding.plain.told(self, super()._error(raw)))
            self._binding.plain.tell(self)
        return known

    def _became_final(self) -> None:
        if self._guard is not None:
            self._binding.plain.settle(self)
        if "_condition" in self.__dict__:
            super()._became_final()


goes_flat(PlainFuture)
_records_lock = threading.RLock()


class _Guard:
    """Releases a handle in place of its future, whose finalizer has been called once, and so never will be again."""

    def __init__(self, engine: Engine, handle: int) -> None:
        self._engine = engine
        self._handle = handle

    def __del__(self) -> None:
        _release(self._engine._driver, self._handle)


class _PlainRecord(TaskRecord):
    """A record whose call moves on without it."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        if key in ("status", "time_returned"):
            self._look()
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As of a dict."""
        return self[key] if key in self else default  # noqa: SIM401 - that is this method

    def _look(self) -> None:
        future = super().__getitem__("app_fu")
        if super().__getitem__("time_returned") is None:
            state = future.task_status()
            super().__setitem__("status", state)
            if state in FINAL_STATES:
                super().__setitem__("time_returned", datetime.datetime.now())


def _record_of(future: PlainFuture) -> TaskRecord:
    binding, args, kwargs = future._binding, future._args, future._kwargs
    app, labels = binding.app, binding.labels
    invoked = datetime.datetime.fromtimestamp(future._made_s)
    return _PlainRecord(
        {
            "id": future.tid,
            "func_name": app.name,
            "func": app.func,
            "args": args,
            "kwargs": kwargs,
            "depends": walk.futures_in(args, kwargs),
            "executor": labels[0] if len(labels) == 1 else random.choice(labels),
            "status": future.task_status(),
            "app_fu": future,
            "try_id": 0,
            "fail_count": 0,
            "fail_cost": 0.0,
            "fail_history": [],
            "retries": 0,
            "memoize": False,
            "ignore_for_cache": list(app.ignore_for_cache or ()),
            "hashsum": None,
            "from_memo": None,
            "outputs": [],
            "join": False,
            "joins": None,
            "resource_specification": {},
            "time_invoked": invoked,
            "try_time_launched": invoked,
            "time_returned": None,
            "kind": "task",
            "priority": 0,
            "pool": None,
            "memo_kwargs": {},
            "label": None,
            "dfk": binding.plain.dfk(),
        }
    )


class Binding:
    """What plain calls of an app are, while the kernel's executors stay what they are. Without labels: none are."""

    __slots__ = ("app", "epoch", "function", "labels", "plain")

    def __init__(self, plain: PlainCalls, app: AppBase, function: Any, labels: tuple[str, ...]) -> None:
        self.plain, self.epoch, self.app = plain, plain.epoch, app
        self.function, self.labels = function, labels


class PlainCalls:
    """The plain calls of a kernel.

    Args:
        engine: what runs them.
        dfk: gives the kernel that they are of.
        on_failure: is told of each call that has failed, by its record, soon after that is known.
    """

    def __init__(self, engine: Engine, dfk: Callable[[], Any], on_failure: Callable[[TaskRecord], None]) -> None:
        self.engine = engine
        self.dfk = dfk
        self.epoch = object()
        """Another one each time that bindings have to be made anew."""
        self.ended = dict.fromkeys(_STATES, 0)
        """How many have ended in each state of the core, of those that are no longer looked at."""
        self._on_failure = on_failure
        self._made: collections.deque[weakref.ref[PlainFuture]] = collections.deque()
        self._left: dict[int, PlainFuture] = {}  # let go before they have ended
        self._untold: collections.deque[PlainFuture] = collections.deque()
        self._gone = 0
        self._limit = _FEW
        self._lock = threading.RLock()
        engine.start_notifier()

    def call(self, binding: Binding, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PlainFuture | None:
        """Submits a call; None: it is not plain, or something is wrong with it: the kernel's way says what."""
        if kwargs and not (_KERNELS.isdisjoint(kwargs) and (_LOOKED_AT.isdisjoint(kwargs) or _says_nothing(kwargs))):
            return None
        if heard(_log, logging.DEBUG):
            return None
        engine = self.engine
        try:
            number = engine.function_id(binding.function)
            future: PlainFuture | None = (
                engine.call_named(number, args, kwargs, PlainFuture)
                if kwargs
                else engine.call_flat(number, args, 0, 0, PlainFuture)
            )
            if future is None:
                if walk.find((args, kwargs), _FILES):
                    return None
                future = engine.call(number, args, kwargs, 0, 0, PlainFuture)
        except Exception:  # noqa: BLE001 - an argument that cannot be pickled, an engine that has ended
            return None
        future._binding, future._args, future._kwargs, future._made_s = binding, args, kwargs, time.time()
        self._made.append(weakref.ref(future))
        if len(self._made) > self._limit:
            self._look_through()
        if self._untold:
            self.flush()
        return future

    @property
    def count(self) -> int:
        """Calls so far."""
        return len(self._made) + self._gone

    def counts(self) -> dict[States, int]:
        """How many are in each state."""
        found = dict.fromkeys(States, 0)
        for code, number in self.ended.items():
            found[_STATES[code]] += number
        for future in self._known():
            if not future._is_counted:
                found[States(future.task_status())] += 1
        return found

    def unfinished(self) -> list[PlainFuture]:
        """Those that have not ended."""
        return [future for future in self._known() if not future.done()]

    def _known(self) -> list[PlainFuture]:
        with self._lock:
            futures = [ref() for ref in self._made.copy()]
            return [future for future in futures if future is not None] + list(self._left.copy().values())

    def _look_through(self) -> None:
        """Forgets those that have ended, or are gone."""
        with self._lock:
            for _ in range(len(self._made)):
                future = self._made[0]()
                if future is not None and _state_of(future._handle) < _FIRST_FINAL:
                    self._made.append(self._made.popleft())
                    continue
                self._made.popleft()
                self._gone += 1
                if future is not None:
                    self._count(future)
            self._limit = max(_FEW, 2 * len(self._made))

    def _count(self, future: PlainFuture) -> None:
        if not future._is_counted:
            future._is_counted = True
            self.ended[_state_of(future._handle)] += 1

    # -- ends --

    def keep(self, future: PlainFuture, handle: int, state: int) -> bool:
        """In the finalizer of a future that has not ended well: whether it lives on."""
        if state >= _FIRST_FINAL and (future._failure is not None or state == lib.MT_CANCELLED):
            self._count(future)
            return False
        future._guard = _Guard(self.engine, handle)
        if state >= _FIRST_FINAL:
            self._count(future)
            self._untold.append(future)
            return True
        self._left[handle] = future
        if not self.engine.watch_unlocked(handle, future):
            self._left.pop(handle, None)
            if _state_of(handle) >= _FIRST_FINAL:
                self._count(future)
        return True

    def settle(self, future: PlainFuture) -> None:
        """In the notifier: one that was let go has ended."""
        self._left.pop(future._handle, None)
        self._count(future)
        self.tell(future)

    def flush(self) -> None:
        """Tells of failures that finalizers have found."""
        while self._untold:
            try:
                future = self._untold.popleft()
            except IndexError:
                return
            self.tell(future)

    def tell(self, future: PlainFuture) -> None:
        """Tells of a failure, once."""
        if future.task_status() in FINAL_FAILURE_STATES and not future._is_told:
            future._is_told = True
            self._on_failure(future.task_record)

    def told(self, future: PlainFuture, error: BaseException) -> BaseException:
        """An error as Parsl tells it."""
        if has_left(error):
            return as_lost(error, future.tid, name_of(future))
        if isinstance(error, errors.DependencyError) and future.task_status() == States.dep_fail:
            return with_failures(error, walk.futures_in(future._args, future._kwargs))
        return error


def _says_nothing(kwargs: dict[str, Any]) -> bool:
    """Whether `inputs` and `parsl_resource_specification` are such that nothing has to be done about them."""
    spec = kwargs.get("parsl_resource_specification")
    if spec is not None and not (type(spec) is dict and not spec):
        return False
    if "inputs" not in kwargs:
        return True
    if type(kwargs["inputs"]) is not list:
        return False
    kwargs["inputs"] = list(kwargs["inputs"])
    return True
