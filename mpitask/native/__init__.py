"""The border to the C core: the only module that imports the compiled one.

Everything in C is reached as `lib.mt_...`; `check` turns its status codes into exceptions, in one place.
"""

from __future__ import annotations

import importlib
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
    lib.MT_E_SYS: OSError,
    lib.MT_E_PEER: MpitaskError,
    lib.MT_E_RANGE: MpitaskError,
    lib.MT_E_FORKED: NoEngineError,
}


def check(status: int, doing: str) -> int:
    """Passes a status that is no error on; raises what belongs to a negative one, saying what was being done."""
    if status >= 0:
        return status
    text = ffi.string(lib.mt_status_text(status)).decode()
    raise _EXCEPTIONS.get(status, InternalError)(f"{doing}: {text}")


__all__ = ["check", "ffi", "lib"]
