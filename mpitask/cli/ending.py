"""The end of a script: what it still has to do is done in the order in which the interpreter does it."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading

from mpitask.engine import Engine

_PATIENCE_S = 5.0
"""Then the user is told which threads the end waits for."""
_DESCRIPTORS = (1, 2)
BROKEN_PIPE = 141
"""The exit code of a script whose reader has gone (`| head -1`): as a shell names an end by SIGPIPE."""


def finish(engine: Engine) -> None:
    """After the script's last line: waits for its threads, which may submit up to their end, then for all tasks."""
    say_who_is_waited_for()
    threading._shutdown()  # type: ignore[attr-defined]  # pools of threads end there, and nowhere else
    while True:
        engine.finish()
        left = _threads_of_script()  # that callbacks have started meanwhile
        if not left:
            return
        for thread in left:
            thread.join()


def is_good(code: object) -> bool:
    """Whether sys.exit() with this code is a script's normal end."""
    return code is None or (isinstance(code, int) and code == 0)


def say_who_is_waited_for() -> None:
    """The process ends when the script's threads do; the user hears of those that take long."""
    if not _threads_of_script():
        return

    def look() -> None:
        waited_for = threading.Event()
        waited_for.wait(_PATIENCE_S)
        names = ", ".join(repr(thread.name) for thread in _threads_of_script())
        if names:
            text = f"mpitask: the script has ended, but not its threads: {names}; with daemon=True nobody waits for one"
            print(text, file=sys.stderr, flush=True)

    threading.Thread(target=look, name="mpitask-patience", daemon=True).start()


def _threads_of_script() -> list[threading.Thread]:
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if not thread.daemon and thread is not main]


def readers_have_gone() -> bool:
    """Whether nobody reads standard output or error any more."""
    return any(map(_reader_has_gone, _DESCRIPTORS))


def flush() -> bool:
    """Empties the standard streams; False: the reader of one has gone, and what it has not read is dropped."""
    are_read = True
    for stream, descriptor in zip((sys.stdout, sys.stderr), _DESCRIPTORS, strict=True):
        try:
            stream.flush()
        except BrokenPipeError:
            are_read = False
        except (AttributeError, OSError, ValueError):  # there is none, or it is closed
            continue
        if _reader_has_gone(descriptor):  # the interpreter will try to empty it again
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
    return are_read


def _reader_has_gone(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
