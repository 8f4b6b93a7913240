"""What a system refuses at the start is said in its words, with what helps."""

from __future__ import annotations

import errno
import sys

import pytest

import mpitask
from mpitask import python_app
from mpitask.native import check, ffi, lib, system_error


@python_app
def echo(x: int) -> int:
    return x


def test_workers_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    engine = mpitask.load(workers=1)
    monkeypatch.undo()
    try:
        with pytest.raises(OSError, match="forks its workers cannot be started: No such file") as caught:
            echo(1).result(timeout=60)
        assert caught.value.errno == errno.ENOENT
    finally:
        engine.close(drop=True)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EAGAIN, "ulimit -u"), (errno.EMFILE, "ulimit -n"), (errno.ENOMEM, "cgroup"), (errno.EPERM, "permitted")],
)
def test_limits_are_named(number: int, remedy: str) -> None:
    ffi.errno = number
    with pytest.raises(OSError, match=remedy) as caught:
        check(lib.MT_E_SYS, "starting a thread")
    assert caught.value.errno == number
    assert "starting a thread: " in str(caught.value)
    assert remedy in str(system_error(number, "x"))
