"""The engine of a task's sub-tasks: made in a worker process by the first of its tasks that calls an app.

It is an engine like the script's, with a graph, promises and maps; but its only worker is the thread that runs the
task, while that waits, and its way up is the worker's own link: what nobody has time for here goes to the rank, as the
tasks of a script go down. So a task that waits can always go on: it takes back what has not begun, and runs it itself.

There is one exception to "the thread that waits runs sub-tasks": it may wait in a way that the engine does not see
(an event that a callback sets, a loop over `done()`). Then a second thread runs them, after a moment.
"""

from __future__ import annotations

import threading
import weakref

from mpitask import surroundings
from mpitask.config import Config
from mpitask.driver import Driver, make_driver
from mpitask.engine import Engine
from mpitask.errors import AppTimeout
from mpitask.native import check, lib
from mpitask.worker.runner import ProcessWorker, Runner

_PATIENCE_NS = 20_000_000  # tasks wait, none ends, and the thread of the task that submitted them sleeps
_IDLE_NS = 5_000_000  # the second thread gives up
_CANCELLED_WITHIN_NS = 20_000_000


class NestedEngine(Engine):
    """The engine of one worker process, for all tasks that it runs. As `Engine`, but it ends with its process only.

    A task is over when its sub-tasks are: they are waited for before its result is sent. If it fails they are
    cancelled, and those that run already are waited for, unless the walltime of the task is over.
    """

    def __init__(self, worker: ProcessWorker) -> None:
        here = surroundings.current()
        options = worker.options | ({} if here is None else here.options)
        config = Config(retries=options["retries"], loss_retries=options["loss_retries"])
        made = make_driver(config, workers=0, inline_workers=2, parent=-1, rank=options["rank"], above=worker.worker)
        super().__init__(config, workers=0, made=made)
        self.is_job = True
        self._worker = worker
        self._helper = Runner(self._inline_link(0), is_strict=True, above=worker)
        self._spare = Runner(self._inline_link(1))
        self._stand_in_thread = 0

    def start(self) -> Engine:
        """Starts the engine thread. In the thread of the task."""
        check(lib.mt_driver_start(self._driver), "starting the engine of sub-tasks")
        self._started = True
        self._helper.greet(0)
        self._runners[threading.get_ident()] = self._helper
        self._worker.task_ended = self._task_ended
        self._worker.settle = self._settle
        spare = threading.Thread(
            target=_stand_in,
            args=(weakref.ref(self), self._made, self._spare, threading.get_native_id()),
            name="mpitask-spare",
            daemon=True,
        )
        spare.start()
        return self

    def _priority_here(self) -> int:
        if threading.get_ident() == self._stand_in_thread:
            return int(lib.mt_worker_within(self._spare.worker))
        return 0  # the core adds that of the first thread, whatever thread submits

    @property
    def max_workers(self) -> int:
        """Workers that may run sub-tasks, this one included."""
        return 1 + self.stats()["slots"]

    def _settle(self) -> None:
        if not self._helper.is_waited_for and lib.mt_driver_wait_all(self._driver, 0) != lib.MT_OK:
            self.wait()

    def _task_ended(self, error: BaseException | None) -> None:
        if lib.mt_driver_wait_all(self._driver, 0) != lib.MT_OK:
            if error is not None:
                self.cancel_all()
            if not isinstance(error, AppTimeout):
                self.wait()
            elif lib.mt_driver_wait_all(self._driver, _CANCELLED_WITHIN_NS) != lib.MT_OK:
                # What runs elsewhere, and for how long, is not for this task to wait for: its time is over. The engine
                # that its results would come to ends with the process; another one takes its place.
                self._worker.end_soon()
        self._helper.stop_helping()

    def close(self, *, drop: bool = False) -> bool:
        """Waits for all sub-tasks, or, with `drop`, cancels those that have not begun. The engine stays."""
        if drop:
            self.cancel_all()
        else:
            self.wait()
        return True


def _stand_in(ref: weakref.ref[NestedEngine], made: Driver, runner: Runner, first_thread: int) -> None:
    """The second thread."""
    driver = made.pointer

    def look(_: BaseException | None) -> None:
        if lib.mt_driver_is_helped(driver):
            runner.poke()  # the first thread does it

    runner.task_ended = look
    runner.greet(0)
    while True:
        status = lib.mt_driver_wait_stalled(driver, first_thread, _PATIENCE_NS)
        engine = ref()
        if status == lib.MT_E_CLOSED or engine is None:
            return
        if status == lib.MT_OK:
            engine._stand_in_thread = threading.get_ident()
            engine._runners[threading.get_ident()] = runner
            runner.help(driver, 0, _IDLE_NS)
            runner.stop_helping()
            del engine._runners[threading.get_ident()]
        engine = None
