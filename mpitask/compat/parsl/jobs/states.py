"""`parsl.jobs.states`: states of batch jobs, as providers report them."""

from __future__ import annotations

import enum
from pathlib import Path

_SUMMARY_CHARS = 2048


class JobState(enum.IntEnum):
    """The state of a batch job."""

    UNKNOWN = 0
    PENDING = 1
    RUNNING = 2
    CANCELLED = 3
    COMPLETED = 4
    FAILED = 5
    TIMEOUT = 6
    HELD = 7
    MISSING = 8
    SCALED_IN = 9

    def __str__(self) -> str:
        return f"JobState.{self.name}"


TERMINAL_STATES = [
    JobState.CANCELLED,
    JobState.COMPLETED,
    JobState.FAILED,
    JobState.TIMEOUT,
    JobState.MISSING,
    JobState.SCALED_IN,
]


class JobStatus:
    """The state of a batch job, and what is known beside it."""

    SUMMARY_TRUNCATION_THRESHOLD = _SUMMARY_CHARS

    def __init__(
        self,
        state: JobState,
        message: str | None = None,
        exit_code: int | None = None,
        stdout_path: str | None = None,
        stderr_path: str | None = None,
    ) -> None:
        self.state = state
        self.message = message
        self.exit_code = exit_code
        self.stdout_path = stdout_path
        self.stderr_path = stderr_path

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self.state in TERMINAL_STATES

    @property
    def status_name(self) -> str:
        """The name of the state."""
        return self.state.name

    @property
    def stdout(self) -> str | None:
        """What the job wrote to its standard output."""
        return _read(self.stdout_path)

    @property
    def stderr(self) -> str | None:
        """What the job wrote to its standard error."""
        return _read(self.stderr_path)

    @property
    def stdout_summary(self) -> str | None:
        """Beginning and end of it."""
        return _shorten(self.stdout)

    @property
    def stderr_summary(self) -> str | None:
        """Beginning and end of it."""
        return _shorten(self.stderr)

    def __str__(self) -> str:
        return str(self.state) + (f" ({self.message})" if self.message else "")

    def __repr__(self) -> str:
        return f"<JobStatus {self}>"


def _read(path: str | None) -> str | None:
    try:
        return None if path is None else Path(path).read_text(errors="replace")
    except OSError:
        return None


def _shorten(text: str | None) -> str | None:
    if text is None or len(text) <= _SUMMARY_CHARS:
        return text
    return f"{text[: _SUMMARY_CHARS // 2]}\n...\n{text[-_SUMMARY_CHARS // 2 :]}"
