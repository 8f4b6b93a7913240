"""Names of older versions of Parsl that are no longer there: scripts import them, and are told when they use them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mpitask.errors import ConfigurationError

_OLD_OPTIONS = ("channel", "channels", "move_files")


REMOTE = "start the script on the machine itself, inside a job: `srun python -m mpitask --parsl script.py`"
HTEX = "use HighThroughputExecutor"


class Gone:
    """What raises when it is made."""

    remedy = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ConfigurationError(f"{type(self).__name__} is no longer part of Parsl, and not of mpitask: {self.remedy}")


def gone(name: str, remedy: str) -> Any:
    """A class of that name."""
    return type(name, (Gone,), {"remedy": remedy, "__module__": __name__})


def without_old_options(init: Callable[..., None]) -> Callable[..., None]:
    """A provider's `__init__` that takes what it took when there were channels; that has no effect, and is said."""

    @functools.wraps(init)
    def made(self: Any, *args: Any, **options: Any) -> None:
        names = inspect.signature(init).parameters
        old = [name for name in _OLD_OPTIONS if name in options and name not in names]
        for name in old:
            del options[name]
        init(self, *args, **options)
        if old:
            self.old_options = frozenset(old)

    return made
