"""The engines of this process, and which of them is the current one: that of all calls which name no other.

There is at most one: the one that `load` made, or `python -m mpitask`; in a worker process, that of sub-tasks.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import weakref
from typing import TYPE_CHECKING, TypeVar

from mpitask.errors import FORKED, NoEngineError
from mpitask.shared import Shared
from mpitask.worker.runner import ProcessWorker

if TYPE_CHECKING:
    from mpitask.engine import Engine

T = TypeVar("T")

_log = logging.getLogger("mpitask")

current_engine: Engine | None = None
"""The current one, for those who only look; `set_current` changes it."""
_is_forked = False  # from a process that had an engine
engines: weakref.WeakSet[Engine] = weakref.WeakSet()
"""All that have been started and not closed."""


def current() -> Engine:
    """The running engine; within a task, the one for its sub-tasks.

    Raises:
        NoEngineError: there is none.
    """
    engine = find()
    if engine is None:
        if _is_forked:
            raise NoEngineError(FORKED)
        raise NoEngineError(
            "no engine is running: put `with mpitask.load():` around the code that calls apps, "
            "or start the script with `python -m mpitask script.py`"
        )
    return engine


def find() -> Engine | None:
    """As `current`, but None when there is none."""
    worker = ProcessWorker.current
    if current_engine is None and worker is not None and worker.is_here:
        from mpitask.nested import NestedEngine  # most workers never need it

        set_current(NestedEngine(worker).start())
    return current_engine


def share(obj: T) -> Shared[T]:
    """Makes an object ready for many tasks of the running engine: it is sent to each worker once.

    The handle stands for the object in the arguments of any call, at any depth, and in functions that capture it (as a
    default, in a closure, in `functools.partial`, as a global of the script). Functions get the object itself, always
    the same one on a worker: they must not change it. Arrays in it are read-only; large ones are not copied for
    workers on this node but mapped.

    Args:
        obj: anything that can be pickled, as it is now: later changes are not seen.

    Returns:
        The handle. The workers drop the object when it is gone and no task needs it.

    Raises:
        NoEngineError: no engine is running.
        SerializationError: the object cannot be pickled.
    """
    return current().share(obj)


def set_current(engine: Engine | None) -> None:
    """Makes an engine the current one."""
    global current_engine
    current_engine = engine


def ended(engine: Engine) -> None:
    """An engine has been closed."""
    engines.discard(engine)
    if current_engine is engine:
        set_current(None)


def _close_at_exit() -> None:
    """The program has ended with engines that nobody has closed: finishes their tasks, as the standard pools do.

    After the threads of the program, which may submit up to their end, and before what was registered earlier.
    """
    drop = _was_interrupted()
    for engine in list(engines):
        if not (drop or engine.is_job or engine.config.exit_mode == "cleanup"):
            try:
                engine.close()
                continue
            except KeyboardInterrupt:
                drop = True
            except Exception:  # noqa: BLE001 - the other engines must end, too
                _log.exception("the tasks that the program left could not be finished")
        if engine.unfinished and not engine.is_job:
            _log.warning("%d tasks were dropped because the program ended", engine.unfinished)
        engine.close(drop=True)


def _was_interrupted() -> bool:
    """Whether Ctrl-C has ended the program."""
    kind = getattr(sys, "last_type", None)
    return isinstance(kind, type) and issubclass(kind, KeyboardInterrupt)


def _after_fork() -> None:
    global current_engine, _is_forked
    _is_forked = current_engine is not None or ProcessWorker.current is not None
    current_engine = None
    engines.clear()


atexit.register(_close_at_exit)
os.register_at_fork(after_in_child=_after_fork)
