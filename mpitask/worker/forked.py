"""The end of a child that a task or a script has forked and that comes back to where mpitask goes on.

Such a child has a copy of all that mpitask holds and owns none of it: no result is asked of it, no task waits for it,
and MPI must not be finalized in it. It ends as a program of its own would at this point, by its exit code alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import traceback
from typing import NoReturn


def exit_code(error: BaseException | None) -> int:
    """What an interpreter would exit with; a message or a traceback goes to standard error."""
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    traceback.print_exception(error)
    return 1


def end_forked(error: BaseException | None) -> NoReturn:
    """Ends this process with what has been printed and nothing else."""
    code = 1
    with contextlib.suppress(Exception):
        code = exit_code(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).fflush(None)
    os._exit(code)
