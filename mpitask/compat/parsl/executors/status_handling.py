"""`parsl.executors.status_handling`."""

from __future__ import annotations

from typing import Any

from mpitask.compat.parsl.executors.base import ParslExecutor


class BlockProviderExecutor(ParslExecutor):
    """An executor that would get its workers from a provider. Here, nothing is scaled."""

    def __init__(self, *, provider: Any = None, block_error_handler: Any = True) -> None:
        super().__init__()
        self.provider = provider
        self.block_error_handler = block_error_handler

    @property
    def status_polling_interval(self) -> int:
        """Seconds between two looks at blocks."""
        return 0

    @property
    def bad_state_is_set(self) -> bool:
        """Whether it has given up."""
        return False

    @property
    def executor_exception(self) -> Exception | None:
        """Why."""
        return None

    def status(self) -> dict[str, Any]:
        """The state of each block."""
        return {}
