"""`parsl.channels.base`, of older versions."""

from __future__ import annotations


class Channel:
    """The root of channels."""
