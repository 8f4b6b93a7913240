"""The task graphs of Task Bench, their task, and the peak that it is compared with.

A graph has `width` columns and any number of steps. Task (step, column) takes the values of some tasks of the step
before, checks them, computes for a number of iterations, and gives `step * width + column`. After Slaughter et al.,
"Task Bench: A Parameterized Benchmark for Evaluating Parallel Runtime Performance", SC20.

As a program it is one of the processes that find the peak: for each line of its input, a number of seconds, it
computes that long and prints its iterations per second.
"""

from __future__ import annotations

import functools
import random
import sys
import time

import numpy as np

RADIX = 5
"""Dependencies of `nearest`; `random` keeps some of these."""
FRACTION = 0.25
PERIOD = 3
"""After so many steps `random` repeats itself."""
PATTERNS = ("trivial", "no_comm", "stencil_1d", "fft", "tree", "random", "nearest")

# Any number of ones in eight bytes: the loop adds, and waits for no memory.
_ONES = np.broadcast_to(np.float64(1), (1 << 40,))
_add_up = np.add.reduce


class WrongInputError(Exception):
    """A task got other values than those of its dependencies."""


def kernel(iterations: int) -> None:
    """So many floating-point additions, at the speed of C and without the GIL. 0.7 µs for none at all."""
    if _add_up(_ONES[:iterations]) != iterations:
        raise ArithmeticError("the sum is wrong")


def width_at(pattern: str, width: int, step: int) -> int:
    """Columns of a step: all, but that a tree begins with one."""
    return min(width, 1 << min(step, 62)) if pattern == "tree" else width


def period(pattern: str, width: int) -> int:
    """After so many steps the dependencies repeat themselves."""
    if pattern == "fft":
        return max(1, (width - 1).bit_length())
    return PERIOD if pattern == "random" else 1


def _around(pattern: str, width: int, phase: int, column: int) -> list[int]:
    """Columns that a task would depend on if the row had no ends."""
    if pattern == "trivial":
        return []
    if pattern == "no_comm":
        return [column]
    if pattern == "tree":
        return [column // 2]
    if pattern == "stencil_1d":
        return [column - 1, column, column + 1]
    if pattern == "fft":
        return [column - (1 << phase), column, column + (1 << phase)]
    nearest = range(column - RADIX // 2, column + (RADIX - 1) // 2 + 1)
    if pattern == "nearest":
        return list(nearest)
    chance = random.Random(f"{width} {phase} {column}")
    return [i for i in nearest if chance.random() < FRACTION or i == column]


@functools.cache
def _phases(pattern: str, width: int) -> list[list[tuple[int, ...]]]:
    """Dependencies for each step until they repeat themselves, by column."""
    return [
        [tuple(i for i in _around(pattern, width, phase, column) if 0 <= i < width) for column in range(width)]
        for phase in range(period(pattern, width))
    ]


def dependencies(pattern: str, width: int, step: int, column: int) -> tuple[int, ...]:
    """Columns of the step before whose values a task takes."""
    if step == 0:
        return ()
    phases = _phases(pattern, width)
    return phases[(step - 1) % len(phases)][column]


def task(pattern: str, width: int, step: int, column: int, iterations: int, *values: int) -> int:
    """The task. Every system runs this very function, and gives it the values of the dependencies.

    Raises:
        WrongInputError: they are not those values.
    """
    before, wanted = (step - 1) * width, dependencies(pattern, width, step, column)
    if (values or wanted) and tuple([value - before for value in values]) != wanted:
        raise WrongInputError(f"{pattern}: task {step}, {column} got {values}")
    kernel(iterations)
    return step * width + column


def iterations_per_s(seconds: float) -> float:
    """Rate of the kernel, of long calls, for about so many seconds."""
    start = time.perf_counter()
    done = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        kernel(1_000_000)
        done += 1_000_000
    return done / elapsed


if __name__ == "__main__":
    for line in sys.stdin:
        print(iterations_per_s(float(line)), flush=True)
