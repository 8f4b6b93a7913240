"""What the tests of all rooms share: an allocator that fails when told to, and how often hypothesis tries."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import settings

from mpitask.native import ffi, lib

OK = lib.MT_OK
NEVER = 0

# Hypothesis makes a failing example smaller for up to five minutes; a hanging one must end all the same.
SHRINKING_TAKES_LONG = pytest.mark.timeout(400)


def exact(raw: bytes) -> Any:
    """The bytes in memory of just their size, so that a sanitizer sees a read beyond them."""
    return ffi.new(f"unsigned char[{len(raw)}]", raw)


def same_every_time(examples: int, steps: int = 50) -> settings:
    """`examples` with the profile `short`, and as many times more with another as that profile asks for."""
    factor = settings().max_examples / 60
    return settings(
        derandomize=True,
        deadline=None,
        max_examples=max(1, round(examples * factor)),
        stateful_step_count=steps,
    )


class Memory:
    """The test allocator of the core."""

    def __init__(self, fail_at: int = NEVER) -> None:
        self.fail_at = fail_at
        self.alloc = lib.mt_alloc_test_new(fail_at)
        assert self.alloc
        self.told = 0

    def close(self) -> None:
        lib.mt_alloc_test_destroy(self.alloc)

    @property
    def live(self) -> int:
        return int(lib.mt_alloc_test_live(self.alloc))

    @property
    def requests(self) -> int:
        return int(lib.mt_alloc_test_requests(self.alloc))

    def attempt(self, call: Callable[[], Any], unchanged: Callable[[], int] = lambda: OK) -> Any:
        """The answer of `call`. When the allocation that fails is one of its own, the call must say so and leave
        everything so that `unchanged` gives OK and the same call works a second time."""
        before = self.requests
        answer = call()
        hit = before < self.fail_at <= self.requests
        assert self.is_refusal(answer) == hit, (
            f"allocations {before + 1} .. {self.requests}, {self.fail_at} fails: {answer}"
        )
        if not hit:
            return answer
        self.told += 1
        assert unchanged() == OK
        answer = call()
        assert not self.is_refusal(answer)
        return answer

    @staticmethod
    def is_refusal(answer: Any) -> bool:
        return bool(answer == ffi.NULL or answer == lib.MT_E_NOMEM)


def each_allocation_failing(scenario: Callable[[Memory], None]) -> int:
    """Runs `scenario` with its first allocation failing, then with its second and so on until none fails: how many
    there are. Each failure must have been told to the scenario once; nothing may be left."""
    for fail_at in count(1):
        memory = Memory(fail_at)
        scenario(memory)
        failed = memory.requests >= fail_at
        assert memory.told == int(failed), f"allocation {fail_at} failed in silence"
        assert memory.live == 0, f"{memory.live} pieces of memory left when allocation {fail_at} failed"
        memory.close()
        if not failed:
            return fail_at - 1
    raise AssertionError("unreachable")
