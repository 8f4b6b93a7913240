"""An agent: any rank but the root. It starts its engine and its workers, and then only waits for the end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from mpitask import surroundings
from mpitask.config import Config
from mpitask.driver import Network, make_driver, stats_of
from mpitask.engine import Engine
from mpitask.native import check, lib

_TERM_LIMIT_S = 8.0


def _on_term(*_: Any) -> None:
    """The root ends the job when it is told to; if it cannot, this rank ends alone."""
    import os

    timer = threading.Timer(_TERM_LIMIT_S, os._exit, (128 + signal.SIGTERM,))
    timer.daemon = True
    timer.start()


def serve(
    config: Config,
    *,
    workers: int,
    rank: int,
    parent: int,
    network: Network,
    virtual_slots: int = 0,
    cores: int | None = None,
    report: Callable[[dict[str, int]], None] | None = None,
) -> bool:
    """Serves the rank above until it says stop. Main thread only. Whether every process below has ended.

    At the end `report` is called with what the engine has counted.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _on_term)
    inline = config.inline
    made = make_driver(
        config,
        workers=0 if inline else workers,
        inline_workers=int(inline),
        virtual_slots=virtual_slots,
        rank=rank,
        parent=parent,
        cores=cores,
    )
    driver = made.pointer
    network.connect(driver)
    if inline:
        surroundings.follow()
        engine = Engine(config, workers=0, inline_workers=1, made=made)  # ends when it is gone
        engine.serve_inline()
    else:
        check(lib.mt_driver_start(driver), "starting the engine thread")
    while lib.mt_driver_join(driver, -1) != lib.MT_OK:
        pass  # a signal: its handler has run
    check(lib.mt_driver_failure(driver), "this rank's engine has ended because of an error")
    clean = bool(lib.mt_driver_is_clean(driver))
    if report is not None:
        report(stats_of(driver))
    if not inline:  # whose tasks may have left futures behind
        made.destroy()
    return clean
