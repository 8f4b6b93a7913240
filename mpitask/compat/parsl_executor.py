"""mpitask as an executor of Parsl: for those who keep Parsl's kernel and configuration. Needs the `parsl` package.

    from parsl.config import Config
    from mpitask.compat.parsl_executor import MPITaskExecutor

    config = Config(executors=[MPITaskExecutor(workers=8)])

Under `python -m mpitask script.py` (and so under mpiexec) it uses the engine of the job; elsewhere it starts its own,
with worker processes on this machine. Tasks per second are limited by the kernel of Parsl.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any

from mpitask import running
from mpitask.config import make_config
from mpitask.engine import Engine, start_here

try:
    from parsl.executors.base import ParslExecutor
    from parsl.executors.errors import UnsupportedFeatureError
    from parsl.utils import RepresentationMixin
except ImportError as error:
    raise ImportError("MPITaskExecutor is a plug-in of Parsl: pip install 'mpitask[parsl]'") from error


def _apply(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


class MPITaskExecutor(ParslExecutor, RepresentationMixin):  # type: ignore[misc]
    """Runs the tasks of Parsl's kernel on an mpitask engine.

    Args:
        label: its name in Parsl's configuration; unique there.
        workers: worker processes on this machine; "auto": one for each core. Without effect in a job.
        **options: further options of `mpitask.Config`.

    Raises:
        ConfigurationError: an option is wrong.
    """

    def __init__(self, label: str = "mpitask", workers: int | str = "auto", **options: Any) -> None:
        super().__init__()
        self.label = label
        self.workers = workers
        self.options = options
        self._config = make_config(None, {"workers": workers, **options})
        self._engine: Engine | None = None
        self._owned = False

    def start(self) -> None:
        """Starts the engine, or takes that of the job."""
        shared = running.current_engine
        self._owned = shared is None
        if shared is None:
            self._engine = start_here(self._config)
        else:
            self._engine = shared

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Submits a call.

        Raises:
            UnsupportedFeatureError: a resource is asked for.
            SerializationError: the function or an argument cannot be pickled.
        """
        if resource_specification:
            raise UnsupportedFeatureError("resource specification", type(self).__name__, "none")
        assert self._engine is not None, "Parsl calls start() first"
        # The kernel wraps the function anew for every task, so it travels with the call.
        return self._engine.call(self._engine.function_id(_apply), (func, args, kwargs), {})

    def shutdown(self) -> None:
        """Ends the engine, if it was started here."""
        if self._owned and self._engine is not None:
            self._engine.close(drop=True)
        super().shutdown()
