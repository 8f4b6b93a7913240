"""`parsl.channels.local.local`, of older versions."""

from __future__ import annotations

from typing import Any

from mpitask.compat.parsl.channels.base import Channel


class LocalChannel(Channel):
    """This machine, where everything happens: no effect."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass
