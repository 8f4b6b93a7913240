"""The states of a task."""

from __future__ import annotations

import enum


class States(enum.StrEnum):
    """The states of a task. Each is also its name, as `AppFuture.task_status()` gives it."""

    unsched = "unsched"
    """The call is being prepared."""
    pending = "pending"
    """It waits for others."""
    launched = "launched"
    """An executor has it."""
    running = "running"
    """Only in monitoring."""
    running_ended = "running_ended"
    """Only in monitoring."""
    joining = "joining"
    """The body of a join_app has returned; its futures have not all ended."""
    fail_retryable = "fail_retryable"
    """It has failed, and is tried again."""
    exec_done = "exec_done"
    """It has given its result."""
    memo_done = "memo_done"
    """Its result was known."""
    failed = "failed"
    """It has failed for good."""
    dep_fail = "dep_fail"
    """What it needs has failed."""
    cancelled = "cancelled"
    """It was cancelled before it ran. Parsl has no such state: there, nothing can be cancelled."""


FINAL_FAILURE_STATES = {States.failed, States.dep_fail, States.cancelled}
"""The final states without a result."""

FINAL_STATES = {States.exec_done, States.memo_done, *FINAL_FAILURE_STATES}
"""The states that a task never leaves."""
