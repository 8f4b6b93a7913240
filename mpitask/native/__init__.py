"""The border to the C core: the only module that imports the compiled one.

Everything in C is reached as `lib.mt_...`; `check` turns its status codes into exceptions, in one place.
"""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any

from mpitask.errors import EngineClosedError, InternalError, MpitaskError, NoEngineError

try:
    _core = importlib.import_module("mpitask.native._core")
except ImportError as error:  # pragma: no cover - depends on how it was installed
    raise ImportError(
        f"the compiled part of mpitask cannot be loaded ({error}); build it with `make build` in a checkout, "
        "or install the package again with `pip install --force-reinstall mpitask`"
    ) from error

ffi: Any = _core.ffi
lib: Any = _core.lib

_EXCEPTIONS: dict[int, type[BaseException]] = {
    lib.MT_E_NOMEM: MemoryError,
    lib.MT_E_CLOSED: EngineClosedError,
    lib.MT_E_INVAL: ValueError,
    lib.MT_E_RECORD: InternalError,
    lib.MT_E_TIMEOUT: TimeoutError,
    lib.MT_E_STALE: InternalError,
    lib.MT_E_PEER: MpitaskError,
    lib.MT_E_RANGE: MpitaskError,
    lib.MT_E_FORKED: NoEngineError,
}


_REMEDIES = {
    errno.EAGAIN: "there may be no more processes or threads of this user or job: see `ulimit -u`, and pids.max of the "
    "job's cgroup; or start fewer workers",
    errno.EMFILE: "this process may open no more files: see `ulimit -n`",
    errno.ENFILE: "the machine may open no more files: see /proc/sys/fs/file-nr",
    errno.ENOMEM: "there is no memory left: see `ulimit -v`, and the memory limit of the job's cgroup",
}


def system_error(number: int, doing: str) -> OSError:
    """A failed system call, in words: what was being done, the system's reason, and what helps."""
    reason = os.strerror(number) if number else "a system call failed"
    remedy = _REMEDIES.get(number)
    return OSError(number, f"{doing}: {reason}{f'; {remedy}' if remedy else ''}")


def check(status: int, doing: str) -> int:
    """Passes a status that is no error on; raises what belongs to a negative one, saying what was being done."""
    if status >= 0:
        return status
    if status == lib.MT_E_SYS:
        raise system_error(ffi.errno, doing)
    text = ffi.string(lib.mt_status_text(status)).decode()
    raise _EXCEPTIONS.get(status, InternalError)(f"{doing}: {text}")


__all__ = ["check", "ffi", "lib", "system_error"]
