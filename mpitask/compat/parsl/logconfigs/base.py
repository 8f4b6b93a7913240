"""`parsl.logconfigs.base`."""

from __future__ import annotations

import abc
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class LogConfig(abc.ABC):
    """How messages of a run are kept.

    Attributes:
        uuid: the same in all copies of one configuration, in other processes too.
    """

    def __new__(cls, *_: object, **__: object) -> LogConfig:  # noqa: D102 - for classes without a super().__init__()
        made = super().__new__(cls)
        made.uuid = uuid.uuid4()
        return made

    uuid: uuid.UUID

    @abc.abstractmethod
    def initialize_logging(self, *, log_dir: Path, log_name: str) -> Callable[[], None]:
        """Begins; gives a function that ends it."""


@dataclass
class _Context:
    users: int
    uninit_callback: Callable[[], None]


_initialized_log_contexts: dict[uuid.UUID, _Context] = {}
_lock = threading.Lock()


def oneshot_initialize_logging(*, log_config: LogConfig | None, log_dir: Path, log_name: str) -> None:
    """Begins, unless a copy of this configuration has begun in this process already."""
    if log_config is None:
        return
    with _lock:
        context = _initialized_log_contexts.get(log_config.uuid)
        if context is None:
            end = log_config.initialize_logging(log_dir=log_dir, log_name=log_name)
            context = _initialized_log_contexts[log_config.uuid] = _Context(0, end)
        context.users += 1


def oneshot_uninitialize_logging(*, log_config: LogConfig | None) -> None:
    """Ends what `oneshot_initialize_logging` began when it has been called as often as that."""
    if log_config is None:
        return
    with _lock:
        context = _initialized_log_contexts[log_config.uuid]
        context.users -= 1
        if context.users:
            return
        del _initialized_log_contexts[log_config.uuid]
    context.uninit_callback()
