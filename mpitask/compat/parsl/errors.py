"""The exceptions of `parsl.errors`: mpitask's own, where it has them."""

from __future__ import annotations

from collections.abc import Sequence

from mpitask.errors import ConfigurationError, MpitaskError
from mpitask.errors import InternalError as InternalConsistencyError
from mpitask.errors import MpitaskError as ParslError
from mpitask.errors import NoEngineError as NoDataFlowKernelError

__all__ = [
    "ConfigurationError",
    "InternalConsistencyError",
    "NoDataFlowKernelError",
    "OptionalModuleMissing",
    "ParslError",
]


class OptionalModuleMissing(MpitaskError):  # noqa: N818 - the field's name for it
    """What was asked for needs a package that is not installed."""

    def __init__(self, module_names: Sequence[str], reason: str) -> None:
        super().__init__(module_names, reason)
        self.module_names = list(module_names)
        self.reason = reason

    def __str__(self) -> str:
        return f"this needs modules that cannot be imported ({', '.join(self.module_names)}): {self.reason}"
