"""The run directory: a numbered folder for each run."""

from __future__ import annotations

import os
from pathlib import Path

from mpitask.errors import ConfigurationError
from mpitask.private import DIRECTORY_MODE, make_directories


def make_run_dir(parent: str | os.PathLike[str]) -> str:
    """Makes `<parent>/<NNN>` with the first free number; its absolute path. Two programs that start at once get two.

    Only the user who runs it may look into it.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        make_directories(parent)
        taken = [int(path.name) for path in Path(parent).iterdir() if path.name.isdecimal()]
        number = max(taken, default=-1) + 1
        while True:
            try:
                path = os.path.abspath(os.path.join(parent, f"{number:03d}"))  # noqa: PTH100, PTH118 - a string
                Path(path).mkdir(mode=DIRECTORY_MODE)
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise ConfigurationError(f"the run directory {os.fspath(parent)!r} cannot be made: {error}") from error
