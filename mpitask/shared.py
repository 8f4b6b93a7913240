"""`share`: a large read-only object for many tasks.

The object is pickled once, travels down each edge of the tree once, and each worker decodes it once, however many tasks
use it. To the core it is a promise that is fulfilled already; tasks that get it depend on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from mpitask import codec
from mpitask.futures import INNER, Future
from mpitask.native import ffi, lib

if TYPE_CHECKING:
    from mpitask.submission import Submission

T = TypeVar("T")

_release = lib.mt_driver_release_shared


class Shared(Future[T], Generic[T]):
    """An object that is at the workers, for tasks to read. Made by `share`; any thread may call any method.

    Given as an argument of a call (at any depth), or captured by its function, it is the object itself there. It is
    dropped at the workers when nothing refers to this handle any more and no task needs it. As a future it is done.
    """

    __slots__ = ("nbytes", "type_name")

    def __init__(self, engine: Submission, handle: int, type_name: str, nbytes: int) -> None:
        super().__init__(engine, handle)
        self.type_name = type_name
        self.nbytes = nbytes
        """Bytes of the pickled object."""

    def __del__(self) -> None:
        _release(self._engine._driver, self._handle)

    def result(self, timeout: float | None = None) -> T:
        """The object as tasks get it: a copy that was made by `share`, whose arrays are read-only.

        Raises:
            EngineClosedError: the engine ended at once.
            TimeoutError: never in practice; the value is there after some microseconds.
        """
        raw = lib.mt_driver_value(self._handle)
        if not raw:
            self._wait(timeout)
            raw = lib.mt_driver_value(self._handle)
        if not raw or raw.outcome != lib.MT_OUTCOME_OK:
            raise self._error(raw)
        if not hasattr(self, "_decoded"):
            self._decoded: T = codec.decode(raw.codec, self._view(raw), borrow=True)
        return self._decoded

    def _view(self, raw: Any) -> memoryview:
        """The bytes, which stay as long as something made of them does."""
        engine, handle = self._engine, self._handle
        lib.mt_task_ref(ffi.cast("mt_task *", handle))
        data = ffi.gc(raw.data, lambda _: _release(engine._driver, handle))
        return memoryview(ffi.buffer(data, raw.size)).toreadonly()

    @property
    def value(self) -> T:
        """As `result()`."""
        return self.result()

    def cancel(self) -> bool:
        """Does nothing: it is done. False."""
        return False

    def __repr__(self) -> str:
        return f"<mpitask.Shared {self.type_name}, {self.nbytes} bytes>"

    def __reduce__(self) -> Any:
        return codec.reduce_shared(self)

    def __getattr__(self, name: str) -> Any:
        if name in INNER:
            return super().__getattr__(name)
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}; the object that is shared is its `value`"
        )

    def __getitem__(self, key: Any) -> NoReturn:
        raise TypeError("a Shared cannot be indexed; the object that is shared is its `value`")
