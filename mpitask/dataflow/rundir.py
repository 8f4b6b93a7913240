"""The run directory: a numbered folder for each run."""

from __future__ import annotations

import os
from pathlib import Path

from mpitask.errors import ConfigurationError


def make_run_dir(parent: str | os.PathLike[str]) -> str:
    """Makes `<parent>/<NNN>` with the first free number; its absolute path. Two programs that start at once get two.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        Path(parent).mkdir(parents=True, exist_ok=True)
        taken = [int(path.name) for path in Path(parent).iterdir() if path.name.isdecimal()]
        number = max(taken, default=-1) + 1
        while True:
            try:
                path = os.path.abspath(os.path.join(parent, f"{number:03d}"))  # noqa: PTH100, PTH118 - a string
                Path(path).mkdir()
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise ConfigurationError(f"the run directory {os.fspath(parent)!r} cannot be made: {error}") from error
