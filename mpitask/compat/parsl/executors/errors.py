"""The exceptions of executors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mpitask.errors import MpitaskError

__all__ = [
    "BadMessage",
    "BadStateException",
    "ExecutorError",
    "InvalidResourceSpecification",
    "ScalingFailed",
    "UnsupportedFeatureError",
]


class ExecutorError(MpitaskError):
    """Something is wrong with an executor."""

    def __init__(self, executor: Any, reason: str) -> None:
        super().__init__(executor, reason)
        self.executor = executor
        self.reason = reason

    def __str__(self) -> str:
        return f"executor {getattr(self.executor, 'label', self.executor)} failed: {self.reason}"


class BadStateException(ExecutorError):  # noqa: N818 - the field's name for it
    """An executor runs no more tasks."""

    def __init__(self, executor: Any, exception: BaseException | str) -> None:
        super().__init__(executor, str(exception))
        self.exception = exception


class ScalingFailed(ExecutorError):  # noqa: N818 - the field's name for it
    """An executor cannot get more workers."""


class UnsupportedFeatureError(ExecutorError):
    """An executor cannot do what is asked of it."""

    def __init__(self, feature: str, current_executor: str, target_executor: str | None = None) -> None:
        super().__init__(current_executor, f"{feature} is not supported")
        self.feature = feature
        self.current_executor = current_executor
        self.target_executor = target_executor

    def __reduce__(self) -> Any:
        return type(self), (self.feature, self.current_executor, self.target_executor)

    def __str__(self) -> str:
        hint = f"; {self.target_executor} has it" if self.target_executor else ""
        return f"{self.feature} is not supported by {self.current_executor}{hint}"


class InvalidResourceSpecification(ExecutorError):  # noqa: N818 - the field's name for it
    """`parsl_resource_specification` is not what the executor takes.

    Attributes:
        invalid_keys: those that are wrong.
        message: what is wrong with them.
    """

    def __init__(self, invalid_keys: Iterable[str], message: str = "") -> None:
        super().__init__(invalid_keys, message)
        self.invalid_keys = set(invalid_keys)
        self.message = message

    def __str__(self) -> str:
        keys = ", ".join(sorted(map(repr, self.invalid_keys))) or "none given"
        return f"invalid resource specification ({keys}). {self.message}".rstrip()


class BadMessage(MpitaskError):  # noqa: N818 - the field's name for it
    """A message has a form that nobody knows."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
