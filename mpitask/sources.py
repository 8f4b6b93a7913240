"""Code objects as bytes, with what tracebacks and `inspect.getsource` need where they are run.

File names stay as they are. Where the text is in no file (a notebook's cell, `-c`, what was compiled from a string and
made known to linecache), it goes along, and is given to linecache there. The text of a file does not: workers read it.

Thread rule: any thread.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import linecache
import marshal
import os
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

_COMMAND = "<string>"  # what Python calls the text behind -c
_joined: dict[str, tuple[list[str], str]] = {}  # by file name: linecache's lines, and the same object for the same text


def reduce_code(code: types.CodeType) -> Any:
    """For a pickler's `reducer_override`. Interpreters of a job are alike, so marshal's format will do.

    NotImplemented if it holds constants that no compiler makes.
    """
    try:
        data = marshal.dumps(code)
    except ValueError:
        return NotImplemented
    text = _text_behind(code)
    return (marshal.loads, (data,)) if text is None else (load_code, (data, code.co_filename, text))


def load_code(data: bytes, filename: str, text: str) -> Any:
    """The code object whose text is in no file."""
    known = linecache.cache.get(filename)
    lines = text.splitlines(keepends=True)
    if known is None or len(known) == 1 or known[2] != lines:
        linecache.cache[filename] = (len(text), None, lines, filename)  # None: not to be compared with a file
    return marshal.loads(data)


def _text_behind(code: types.CodeType) -> str | None:
    filename = code.co_filename
    known = linecache.cache.get(filename)
    lines: list[str] = []
    if known is not None and len(known) == 4 and (known[1] is None or not _is_file(filename)):
        lines = known[2]
    elif filename == _COMMAND:
        lines = _commands().get(code, [])
    elif not _is_file(filename):
        lines = linecache.getlines(filename)
    if not lines:
        return None
    joined = _joined.get(filename)
    if joined is None or joined[0] is not lines:
        joined = _joined[filename] = lines, "".join(lines)
    return joined[1]


@functools.cache
def _is_file(filename: str) -> bool:
    return os.path.exists(filename)  # noqa: PTH110 - it may be no path at all


@functools.cache
def _commands() -> dict[types.CodeType, list[str]]:
    """The text that this interpreter was given with -c, by its code: other text without a file has the same name."""
    found: dict[types.CodeType, list[str]] = {}
    for word, text in itertools.pairwise(sys.orig_argv[1:]):
        if re.fullmatch("-[a-zA-Z]*c", word):
            lines = (text + "\n").splitlines(keepends=True)
            with contextlib.suppress(SyntaxError, ValueError):
                found.update(
                    dict.fromkeys(_all_codes(compile(text + "\n", _COMMAND, "exec", dont_inherit=True)), lines)
                )
    return found


def _all_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_codes(constant)
