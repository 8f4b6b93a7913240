"""From the first moment of a process until the script begins: little is imported yet, and nothing has to be undone."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any, NoReturn


def launched_rank() -> int:
    """The launcher's number of this process; 0 when there is none. For messages: the real rank is MPI's."""
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PALS_RANKID", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def _on_interrupt(*_: Any) -> NoReturn:
    if launched_rank() == 0:
        os.write(2, b"mpitask: interrupted\n")
    os._exit(128 + signal.SIGINT)


def end_on_interrupt() -> None:
    """Ctrl-C ends the process at once, with one line from the launcher's first one."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _on_interrupt)


@contextlib.contextmanager
def at_the_mercy_of_signals() -> Iterator[None]:
    """Around code in C that may wait for ever, as for a rank that is gone: Ctrl-C ends the process there, too."""
    before = signal.getsignal(signal.SIGINT)
    changes = before is _on_interrupt
    if changes:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if changes:
            signal.signal(signal.SIGINT, before)
