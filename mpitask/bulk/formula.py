"""Items that a formula gives: workers make them, nobody has to send them."""

from __future__ import annotations

import sys
from typing import Any

_BLOCK = 1 << 16


class Formula:
    """Items start, start + step, ...: integers, or numbers of the numpy type `dtype`."""

    def __init__(self, start: int, step: int, dtype: str) -> None:
        self.start, self.step, self.dtype = start, step, dtype

    @property
    def args(self) -> tuple[int, int, str]:
        """What it is made from."""
        return self.start, self.step, self.dtype

    def items(self, first: int, count: int) -> Any:
        """Items first ... first + count, a sequence."""
        if not self.dtype:
            return range(self.start + first * self.step, self.start + (first + count) * self.step, self.step)
        import numpy as np  # only for those whose items are numpy's

        word = 1 << 64  # arithmetic modulo 2^64 gives the right bits whatever the sign and the size
        numbers = np.arange(count, dtype=np.uint64) * np.uint64(self.step % word)
        return (numbers + np.uint64((self.start + first * self.step) % word)).astype(self.dtype)

    @classmethod
    def of(cls, items: Any) -> Formula | None:
        """The formula of a range, or of a numpy array that is one; None: there is none."""
        if isinstance(items, range):
            return cls(items.start, items.step, "")
        if not is_array(items) or items.ndim != 1 or items.dtype.kind not in "iu" or len(items) < 2:
            return None
        start = int(items[0])
        found = cls(start, int(items[1]) - start, items.dtype.str)
        if int(items[-1]) != start + found.step * (len(items) - 1):
            return None
        blocks = range(0, len(items), _BLOCK)
        same = (bool((found.items(at, len(block := items[at : at + _BLOCK])) == block).all()) for at in blocks)
        return found if all(same) else None


def is_array(items: Any) -> bool:
    """Whether it is an array of numpy's."""
    numpy = sys.modules.get("numpy")  # who has an array has imported it
    return numpy is not None and type(items) is numpy.ndarray and items.ndim > 0
