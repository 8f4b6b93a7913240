"""`parsl.jobs.error_handlers`: accepted in configurations. mpitask starts no batch jobs, so that nothing calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpitask.compat.parsl.jobs.states import JobStatus


def noop_error_handler(executor: Any, status: Mapping[str, JobStatus], threshold: int = 3) -> None:
    """Nothing."""


def simple_error_handler(executor: Any, status: Mapping[str, JobStatus], threshold: int = 3) -> None:
    """Nothing."""


def windowed_error_handler(executor: Any, status: Mapping[str, JobStatus], threshold: int = 3) -> None:
    """Nothing."""
