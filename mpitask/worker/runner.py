"""The loop that runs tasks: in a worker process, or in a thread of the rank (an inline worker).

It relies on the C side for waiting, objects and the order of records; here is only what needs Python: unpickle, call,
pickle.
"""

from __future__ import annotations

import functools
import marshal
import os
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, ClassVar

from mpitask import codec, surroundings
from mpitask.native import check, ffi, lib
from mpitask.worker import tidy
from mpitask.worker.forked import end_forked

_KIND_TASK = lib.MT_KIND_TASK
_KIND_STOP = lib.MT_KIND_STOP
_KIND_DROP = lib.MT_KIND_DROP
_DONE = lib.MT_OK
_OK = lib.MT_OUTCOME_OK
_ERROR = lib.MT_OUTCOME_ERROR
_PATIENCE_NS = 100_000_000  # then a task that waits runs whatever there is,
_LOOSE_DEPTH = 20  # if no more tasks than these wait below it
_LEVELS = 8  # tasks that wait in one thread have one stack: so often it is given more room,
_MOST_LEVELS = 2000  # up to here, as long as the system's own stack (8 MiB) surely holds
_MODULES = (
    "(workers look for modules where the script did when it first called an app: "
    "a folder that it adds to sys.path later has to be in PYTHONPATH, too)"
)
_NO_WAITING = (
    "what is imported or made while the arguments of a task are unpickled, or a function that captures shared objects, "
    "must not wait for other tasks: wait in the function itself"
)
_MARSHAL, _FLAT, _SHARED, _MAPPED = codec.MARSHAL, codec.FLAT, codec.SHARED, codec.MAPPED


def _map(edge: Any, *, is_private: bool) -> Any:
    """The bytes that a worker maps, as a buffer; they stay as long as something made of it does.

    Raises:
        OSError: they cannot be mapped.
    """
    mapping = lib.mt_mapping_open(edge.args, edge.args_size, is_private)
    if not mapping:
        raise OSError(ffi.errno, f"a value cannot be mapped: {os.strerror(ffi.errno)}")
    data = ffi.gc(mapping.data, lambda _, close=lib.mt_mapping_close: close(mapping))
    return ffi.buffer(data, mapping.size)


def _hold(worker: Any, edge: Any) -> Any:
    """The bytes of an object that this process holds; the same."""
    blob = lib.mt_worker_hold(worker, edge.id)
    data = ffi.gc(edge.args, lambda _, unref=lib.mt_blob_unref: unref(blob))
    return ffi.buffer(data, edge.args_size)


class Runner:
    """Runs the tasks of one link, in one thread.

    A task may wait for others (`help`): then its thread runs some of them meanwhile.
    """

    def __init__(self, worker: Any, *, is_strict: bool = False, above: Runner | None = None) -> None:
        """A runner of the link `worker`.

        Args:
            worker: an `mt_worker`.
            is_strict: what runs while a task waits must have been submitted within it, or deeper, so that waiting
                tasks do not pile up; unless that keeps it waiting for long.
            above: the runner of the same thread whose task waits here first.
        """
        self.worker = worker
        self.task_ended: Callable[[BaseException | None], None] | None = None
        """Called after each task, before its result is sent, with why it failed."""
        self._is_strict = is_strict
        self._depth = 0
        self._frames = sys.getrecursionlimit()  # that each task may have for itself
        self._deepest = 0
        self._above = above
        self._is_running = False
        self._is_unpickling = False
        self._edge = ffi.new("mt_call *")
        self._window = ffi.buffer(lib.mt_worker_window(worker), lib.MT_WINDOW_BYTES)
        self._functions: dict[int, Callable[..., Any]] = {}
        self._shared: dict[int, Any] = {}
        self._pause: Any = None  # of the task that runs, once it has waited
        self._is_told_to_stop = False
        self._tidies: bool = above is not None and above._tidies
        """Whether what tasks have changed in the process is put back: by its first thread alone."""

    def greet(self, slots: int) -> None:
        """Says HELLO, before all else; `slots`: how many tasks it takes at a time outside `help`."""
        check(lib.mt_worker_hello(self.worker, slots), "greeting the engine")

    def run(self) -> None:
        """Runs tasks until the engine says stop. Says HELLO first."""
        self.greet(1)
        call = ffi.new("mt_call *")
        self._serve(call, lib.mt_worker_next, self.worker, -1, call)

    def help(self, driver: Any, handle: int, timeout_ns: int) -> int:
        """Runs tasks until task `handle` of the same driver is final (0: until somebody calls `poke`).

        Returns:
            MT_OK: it is. MT_E_TIMEOUT; MT_E_INTR after a poke, a signal or now and then; MT_E_CLOSED.

        Raises:
            RuntimeError: arguments of a task are being unpickled in this thread.
            RecursionError: too many tasks wait in this thread, each for one of the next.
        """
        if self._is_told_to_stop:
            return int(lib.MT_E_CLOSED)
        if self._is_unpickling:  # what runs meanwhile would take the place of the rest of it
            raise RuntimeError(_NO_WAITING)
        if self._depth >= self._deepest + _LEVELS:
            self._make_room()
        if self._pause is None:
            if self._above is not None and not self._is_running:
                lib.mt_worker_follow(self.worker, self._above.worker)
            pause = ffi.new("mt_pause *")
            check(lib.mt_worker_block(self.worker, self._is_strict, pause), "waiting for a sub-task")
            self._pause = pause
        else:
            pause = self._pause
        left = tidy.put_aside() if self._tidies and tidy.touched else None
        call = ffi.new("mt_call *")
        may_loosen = self._is_strict and self._depth < _LOOSE_DEPTH and (timeout_ns < 0 or timeout_ns > _PATIENCE_NS)
        self._depth += 1
        try:
            status = self._serve(
                call, lib.mt_driver_help, driver, handle, self.worker, _PATIENCE_NS if may_loosen else timeout_ns, call
            )
        finally:
            self._depth -= 1
            lib.mt_worker_go_on(self.worker, pause)
            if left is not None:
                tidy.take_up(left)
        if may_loosen and status == lib.MT_E_TIMEOUT:
            check(lib.mt_worker_loosen(self.worker), "waiting for a sub-task")
            return int(lib.MT_E_INTR)
        return status

    def _make_room(self) -> None:
        """What runs in this thread now may have as many frames of its own as a task that nobody waits for."""
        if self._depth >= _MOST_LEVELS:
            raise RecursionError(
                f"{self._depth:,} tasks wait in one thread, each for a sub-task of its own, and there can be no more: "
                "let a task give back what is left to do, and submit that from where its result is used"
            )
        frame: FrameType | None = sys._getframe()
        n = 0
        while frame is not None:
            frame, n = frame.f_back, n + 1
        sys.setrecursionlimit(max(sys.getrecursionlimit(), n + 2 * self._frames))
        self._deepest = self._depth

    def stop_helping(self) -> None:
        """The task that has waited is through: gives back what was sent ahead."""
        pause, self._pause = self._pause, None
        if pause is not None:
            check(lib.mt_worker_unblock(self.worker, pause), "ending to wait for sub-tasks")

    @property
    def is_waited_for(self) -> bool:
        """Whether a task waits in this thread while others run."""
        return self._depth > 0

    def end_soon(self) -> None:
        """Within a task: it is the last one."""
        self._is_told_to_stop = True

    def poke(self) -> None:
        """Any thread: what `help` waits for may have happened."""
        lib.mt_worker_poke(self.worker)

    def _serve(  # noqa: PLR0912 - one loop, because it is run for every task
        self, call: Any, next_record: Callable[..., int], *arguments: Any
    ) -> int:
        worker, functions = self.worker, self._functions
        answer = lib.mt_worker_answer
        loads, dumps, scalars, window = marshal.loads, marshal.dumps, codec.SCALARS, self._window
        outer, was_running = self._pause, self._is_running
        touched = tidy.touched if self._tidies else ()
        while True:
            kind = next_record(*arguments)
            if kind == _KIND_TASK:
                self._pause, self._is_running = None, True
                try:
                    fn = functions.get(call.fn)
                    value = fn(*loads(window)) if fn is not None and call.is_plain else self._bound(call)()
                    if self._pause is not None or self.task_ended is not None:
                        self._finish(None)
                    if type(value) in scalars:
                        try:
                            data = dumps(value, 2)
                        except ValueError:  # 2 GiB and more
                            status = self._answer(value, call.fn)
                        else:
                            status = answer(worker, _OK, _MARSHAL, data, len(data))
                    else:
                        status = self._answer(value, call.fn)
                    value = None
                except BaseException as error:  # noqa: BLE001 - whatever a task raises is its result
                    if not lib.mt_worker_is_ours(worker):
                        end_forked(error)
                    self._finish(error)
                    if isinstance(error, ModuleNotFoundError):
                        error.add_note(_MODULES)
                    data = codec.encode_exception(error)
                    status = answer(worker, _ERROR, codec.PICKLE, data, len(data))
                    value = None
                self._pause, self._is_running = outer, was_running
                if status < 0:
                    if status == lib.MT_E_FORKED:
                        end_forked(None)
                    check(status, "sending a result")
                if touched:
                    tidy.put_back()
                if self._is_told_to_stop:
                    return int(lib.MT_E_CLOSED)
            elif kind == _KIND_STOP:
                self._is_told_to_stop = True
                return int(lib.MT_E_CLOSED)
            elif kind == _KIND_DROP:
                functions.pop(call.id, None)
                self._shared.pop(call.id, None)
            elif kind <= 0:
                if next_record is not lib.mt_worker_next:
                    return kind
                if kind != lib.MT_E_INTR:
                    check(kind, "waiting for tasks")

    def _finish(self, error: BaseException | None) -> None:
        """The task is through, and may have waited for others, or have some that nobody has waited for."""
        if not lib.mt_worker_is_ours(self.worker):
            end_forked(None)
        self.stop_helping()
        if self.task_ended is not None:
            self.task_ended(error)

    def _bound(self, call: Any) -> Callable[[], Any]:
        """The call, ready to be made. Arguments come first: to load a function can mean to run tasks."""
        args, kwargs = (marshal.loads(self._window), {}) if call.is_plain else self._arguments(call)
        fn = self._functions.get(call.fn)
        return functools.partial(self._load(call) if fn is None else fn, *args, **kwargs)

    def _arguments(self, call: Any) -> tuple[Sequence[Any], dict[str, Any]]:
        data = ffi.buffer(call.args, call.args_size)
        was_unpickling, self._is_unpickling = self._is_unpickling, True
        try:
            if call.codec == _FLAT:
                return self._filled(marshal.loads(data)), {}
            return codec.decode_call(call.codec, data, self._resolver(call))
        finally:
            self._is_unpickling = was_unpickling

    def _load(self, call: Any) -> Callable[..., Any]:
        edge, number = self._edge, call.fn
        check(lib.mt_worker_object(self.worker, number, edge), "looking up a function")
        data = _map(edge, is_private=False) if edge.codec & _MAPPED else ffi.buffer(edge.args, edge.args_size)
        may_capture = call.n > 0 and not (call.is_plain and call.codec == _FLAT)  # shared objects: further dependencies
        was_unpickling, self._is_unpickling = self._is_unpickling, may_capture
        try:
            fn = surroundings.load(
                lambda: codec.decode_function(edge.codec, data, self._resolver(call)), self._functions
            )
        finally:
            self._is_unpickling = was_unpickling
        self._functions[number] = fn
        return fn

    def _resolver(self, call: Any) -> Callable[[int], Any]:
        """Gives the value of dependency i of a call; -1 is the last."""
        values: dict[int, Any] = {}

        def resolve(index: int) -> Any:
            if index not in values:
                values[index] = self._value(index % call.n)
            return values[index]

        return resolve

    def _filled(self, args: tuple[Any, ...]) -> list[Any]:
        """Flat arguments, with the values of the dependencies in place of their ellipses."""
        filled, index = [], 0
        for arg in args:
            if arg is ...:
                filled.append(self._value(index))
                index += 1
            else:
                filled.append(arg)
        return filled

    def _value(self, index: int) -> Any:
        """The value of dependency `index` of the call that runs."""
        edge = self._edge
        status = lib.mt_worker_edge(self.worker, index, edge)
        if status != _DONE:
            check(status, "looking up an argument")
        kind = edge.codec
        if kind == _MARSHAL:
            return marshal.loads(ffi.buffer(edge.args, edge.args_size))
        if kind & _SHARED:
            return self._decode_shared(edge)
        if kind & _MAPPED:
            return codec.decode(kind, _map(edge, is_private=True), borrow=True)
        return codec.decode(kind, ffi.buffer(edge.args, edge.args_size))

    def _decode_shared(self, edge: Any) -> Any:
        """The object behind a shared value, decoded at its first use; its arrays are views of what is there."""
        number = edge.id
        if number not in self._shared:
            kind = edge.codec
            data = _map(edge, is_private=False) if kind & _MAPPED else _hold(self.worker, edge)
            self._shared[number] = codec.decode(kind, memoryview(data).toreadonly(), borrow=True)
        return self._shared[number]

    def _answer(self, value: Any, fn: int) -> int:
        kind, parts = codec.encode_result(value, self._functions.get(fn))
        c_parts = ffi.new("mt_part[]", len(parts))
        keep = []
        for i, part in enumerate(parts):
            pointer = ffi.from_buffer(part)
            keep.append(pointer)
            c_parts[i].data = pointer
            c_parts[i].size = len(pointer)
        status: int = lib.mt_worker_answer_parts(self.worker, _OK, kind, c_parts, len(parts))
        return status


class ProcessWorker(Runner):
    """The runner of a worker process. One for each process, in its first thread."""

    current: ClassVar[ProcessWorker | None] = None

    def __init__(self, worker: Any, options: dict[str, Any]) -> None:
        """`options`: what an engine made here must know of the job."""
        super().__init__(worker)
        self.options = options
        self.settle: Callable[[], None] | None = None
        """Waits for the sub-tasks of the task that runs, which is over only then."""
        self._home = (os.getpid(), threading.get_ident())
        self._tidies = True
        ProcessWorker.current = self

    @property
    def is_here(self) -> bool:
        """Whether the thread that asks is the one that runs its tasks."""
        return self._home == (os.getpid(), threading.get_ident())
