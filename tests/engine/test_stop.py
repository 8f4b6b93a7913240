"""Stopping an engine thread that takes nothing in."""

from __future__ import annotations

import threading
from typing import Any

from mpitask.config import Config
from mpitask.driver import INBOX_CAPACITY, make_driver
from mpitask.native import check, ffi, lib

LIMIT_S = 60


def test_stop_does_not_wait_for_room_in_the_inbox() -> None:
    hangs, goes_on = threading.Event(), threading.Event()

    def receive(*_: Any) -> int:
        hangs.set()
        goes_on.wait()
        return int(lib.MT_E_AGAIN)

    calls = {
        "receive": ffi.callback("int(mt_transport *, mt_arrival *)", receive),
        "in_flight": ffi.callback("uint32_t(mt_transport *)", lambda _: 0),
        "destroy": ffi.callback("void(mt_transport *)", lambda _: None),
    }
    transport = ffi.new("mt_transport *", calls)
    made = make_driver(Config(), workers=0, inline_workers=1, parent=-1)
    driver = made.pointer
    check(lib.mt_driver_connect(driver, transport, ffi.new("uint32_t[1]"), 0), "connecting")
    check(lib.mt_driver_start(driver), "starting")
    try:
        assert hangs.wait(LIMIT_S)
        handles = [lib.mt_driver_promise(driver) for _ in range(INBOX_CAPACITY)]
        stopping = threading.Thread(target=lib.mt_driver_stop, args=(driver, lib.MT_STOP_NOW), daemon=True)
        stopping.start()
        stopping.join(LIMIT_S)
        was_told = not stopping.is_alive()
    finally:
        goes_on.set()
    assert was_told
    status = lib.MT_E_INTR
    while status == lib.MT_E_INTR:
        status = lib.mt_driver_join(driver, LIMIT_S * 1_000_000_000)
    assert status == lib.MT_OK
    assert {lib.mt_driver_state(handle) for handle in handles} == {lib.MT_CANCELLED}
    for handle in handles:
        lib.mt_driver_release(driver, handle)
    made.destroy()
