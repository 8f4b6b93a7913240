"""`parsl.dataflow.rundirs`."""

from __future__ import annotations

from pathlib import Path

from mpitask.dataflow.rundir import make_run_dir


def make_rundir(path: str) -> str:
    """Makes the next numbered folder in `path`; gives its absolute path."""
    return str(Path(make_run_dir(path)).absolute())
