"""`share` with engines of one test each: inline workers, ended engines, and where nothing can be mapped."""

from __future__ import annotations

import functools
import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpitask
from helpers.processes import Launcher
from mpitask import python_app

LARGE = 1 << 20  # numbers: 8 MB


@python_app
def echo(x: Any) -> Any:
    return x


@python_app
def total(array: Any) -> float:
    return float(array.sum())


class Counted:
    """Writes a line with the process id into a file each time it is unpickled."""

    def __init__(self, log: str, filling: bytes = b"") -> None:
        self.log, self.filling = log, filling

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with Path(self.log).open("a") as file:
            file.write(f"{os.getpid()}\n")


def test_without_an_engine() -> None:
    with pytest.raises(mpitask.NoEngineError):
        mpitask.share(1)
    with mpitask.load(inline=True) as engine:
        shared = mpitask.share(np.ones(LARGE))
    with pytest.raises(mpitask.EngineClosedError):
        engine.share(1)
    assert float(shared.result().sum()) == LARGE
    with mpitask.load(inline=True):  # another engine gets it as its own
        assert total(shared).result(timeout=60) == LARGE
        assert python_app(functools.partial(total.__wrapped__, shared))().result(timeout=60) == LARGE


def test_an_inline_worker(tmp_path: Path) -> None:
    with mpitask.load(inline=True) as engine:
        log = tmp_path / "log"
        shared = mpitask.share([Counted(str(log)), np.ones(LARGE), np.ones(3)])
        look = python_app(
            lambda found, i: (float(found[1].sum()) + i, found[1].flags.writeable, found[2].flags.writeable)
        )
        assert [f.result(timeout=60) for f in [look(shared, i) for i in range(50)]] == [
            (LARGE + i, False, False) for i in range(50)
        ]
        assert len(log.read_text().split()) == 1
        assert mpitask.map(lambda i: shared[2][0] + i, range(3)).result(timeout=60) == [1, 2, 3]
        value = echo(np.ones(LARGE))
        change = python_app(lambda array: (float(array.sum()), array.fill(3)))
        assert [change(value).result(timeout=60)[0] for _ in range(3)] == [LARGE] * 3
        assert engine.stats()["objects_mapped"] == 0


@pytest.mark.parametrize("who", ["script", "worker"])
def test_without_descriptors(launcher: Launcher, who: str) -> None:
    """The script has used up half of its own: the bytes go through the ring. A worker has none: it still maps."""
    source = f"""
        import os, resource
        import numpy as np
        import mpitask
        from mpitask import python_app

        def use_up(n):
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (200, limit[1]))
            global held
            held = []
            try:
                while len(held) < n:
                    held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass

        @python_app
        def hog():
            np.ones(1)
            use_up(1000)

        @python_app
        def total(array):
            return float(array.sum())

        with mpitask.load(workers=1) as engine:
            if {who!r} == "script":
                total(np.ones(1)).result()
                use_up(110)
            else:
                hog().result()
            value = total(np.ones({LARGE}))
            shared = mpitask.share(np.ones({LARGE}))
            array = python_app(lambda: np.ones({LARGE}))()
            for _ in range(3):
                assert total(shared).result() == total(array).result() == {LARGE}
            print(engine.stats()["objects_mapped"])
    """
    result = launcher.run(textwrap.dedent(source), plain=True)
    assert (result.rc, result.out) == (0, "0\n" if who == "script" else "1\n"), result.err


def test_a_worker_that_cannot_map_is_sent_the_bytes(launcher: Launcher) -> None:
    """A root that is not dumpable lets nobody look into its /proc entry."""
    source = f"""
import ctypes, os
import numpy as np
import mpitask
from mpitask import python_app

@python_app
def total(array):
    return float(array.sum())

if os.geteuid() == 0:
    print("0 root sees everything")
else:
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    with mpitask.load(workers=1) as engine:
        shared = mpitask.share(np.ones({LARGE}))
        assert total(shared).result() == {LARGE}
        print(engine.stats()["objects_mapped"])
"""
    result = launcher.run(source, plain=True)
    assert result.rc == 0, result.err
    assert result.out.startswith("0")
