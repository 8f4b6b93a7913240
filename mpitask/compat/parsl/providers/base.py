"""`parsl.providers.base`: what describes where workers would come from.

mpitask starts no batch jobs: its workers come with the job (`srun python -m mpitask --parsl script.py`). Providers
are accepted in configurations and keep their options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from mpitask.compat.parsl._gone import without_old_options
from mpitask.compat.parsl.jobs.states import JobStatus


class ExecutionProvider:
    """The root of providers."""

    nodes_per_block: int = 1
    init_blocks: int = 1
    min_blocks: int = 0
    max_blocks: int = 1
    parallelism: float = 1
    worker_init: str = ""
    script_dir: str | None = None
    cores_per_node: int | None = None
    mem_per_node: float | None = None

    old_options: frozenset[str] = frozenset()
    """Options of older versions that were given. They have no effect."""

    def __init_subclass__(cls) -> None:
        init = vars(cls).get("__init__")
        if init is not None:
            cls.__init__ = without_old_options(init)  # type: ignore[method-assign]

    @property
    def label(self) -> str:
        """The name of its kind."""
        return type(self).__name__.removesuffix("Provider").lower()

    @property
    def status_polling_interval(self) -> int:
        """Seconds between two looks at the state of jobs."""
        return 60

    def submit(self, command: str, tasks_per_node: int, job_name: str = "parsl") -> object:  # noqa: ARG002
        """Raises NotImplementedError."""
        self._refuse()

    def status(self, job_ids: Sequence[object]) -> Sequence[JobStatus]:  # noqa: ARG002
        """Raises NotImplementedError."""
        self._refuse()

    def cancel(self, job_ids: Sequence[object]) -> Sequence[bool]:  # noqa: ARG002
        """Raises NotImplementedError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} starts no jobs here: mpitask's workers come with the job; "
            "start the script in it with `srun python -m mpitask --parsl script.py`"
        )
