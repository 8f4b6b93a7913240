"""Finds one system's METG(50 %) in this process and prints one JSON line for each pattern of dependencies.

    python -m mpitask --workers 2 benchmarks/metg.py mpitask trivial stencil_1d
    python benchmarks/metg.py --width 16 --seconds 0.3 dask fft

METG(50 %), the minimum effective task granularity, is how long a task must take on average for the system to keep half
of the machine's peak. The task's own time counts with all that the system adds to it: elapsed time, from the first
call until the last value is here, x cores / tasks. Efficiency is the time that the iterations of all tasks take at the
peak over the elapsed time. The peak is the rate of as many plain processes as there are workers, all at once, measured
right before and right after: a shared machine is twice as fast in one second as in another. The grain is made smaller,
by the square root of two each time, until the efficiency falls below 50 %; the granularity in between is interpolated
logarithmically. Of the measurements of a grain the median counts.

A system whose tasks take no futures gets its graph by a client that waits for the values of a task's dependencies
before it submits the task. The systems are those of measure.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import graphs
import measure

CORES = measure.WORKERS
PEAK_S = 0.03
LARGEST_KERNEL_S = 0.1
FIRST_KERNEL_S = 0.02
SMALLEST_KERNEL_S = 1e-6
WANTED = 0.5


class Peak:
    """As many processes as there are workers, which compute at the same time and do nothing else."""

    def __init__(self) -> None:
        command = [sys.executable, graphs.__file__]
        pipe = subprocess.PIPE
        self._processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(CORES)]
        self.rates: list[float] = []
        """Iterations per second of all together, whenever they were measured."""
        for _ in range(10):
            self.rate()

    def rate(self) -> float:
        """Measures once more."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{PEAK_S}\n")
            process.stdin.flush()
        rates = []
        for process in self._processes:
            assert process.stdout is not None
            rates.append(float(process.stdout.readline()))
        self.rates.append(sum(rates))
        return self.rates[-1]

    def __enter__(self) -> Peak:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.communicate()


class Bench:
    """One system, whose graphs are measured one after the other."""

    def __init__(self, system: measure.System, peak: Peak, *, width: int, seconds: float, repeat: int) -> None:
        self._system = system
        self._task = system(graphs.task)
        self._peak = peak
        self._width = width
        self._seconds = seconds
        self._repeat = repeat

    def run(self, pattern: str, steps: int, iterations: int) -> tuple[int, float]:
        """Runs a graph. Its number of tasks, and the seconds until all values were here."""
        system, task, width = self._system, self._task, self._width
        takes_futures, dependencies = system.takes_futures, graphs.dependencies
        futures: list[Any] = []
        before: list[Any] = []
        start = time.perf_counter()
        for step in range(steps):
            row = []
            for column in range(graphs.width_at(pattern, width, step)):
                inputs = [before[i] for i in dependencies(pattern, width, step, column)]
                if not takes_futures:
                    inputs = [future.result() for future in inputs]
                row.append(task(pattern, width, step, column, iterations, *inputs))
            futures += row
            before = row
        values = list(system.results(futures))
        elapsed = time.perf_counter() - start
        wanted = [s * width + c for s in range(steps) for c in range(graphs.width_at(pattern, width, s))]
        assert values == wanted, "a task gave a wrong value"
        return len(values), elapsed

    def steps(self, granularity_s: float) -> int:
        """How many steps take about as long as a measurement should."""
        tasks = self._seconds * CORES / granularity_s
        return max(2 * self._width.bit_length(), min(5000, round(tasks / self._width)))

    def overhead_s(self, pattern: str) -> float:
        """Granularity of tasks that compute nothing, at best: what a search begins with."""
        found = 1e-3
        for _ in range(3):
            tasks, elapsed = self.run(pattern, self.steps(found), 0)
            found = min(found, elapsed * CORES / tasks)
        return found

    def point(self, pattern: str, kernel_s: float, guess_s: float) -> dict[str, float]:
        """Efficiency and granularity of tasks that compute for so long."""
        steps = self.steps(guess_s)
        iterations = max(1, round(kernel_s * statistics.median(self._peak.rates) / CORES))
        tasks, peaks, efficiencies, granularities_s = 0, [self._peak.rate()], [], []
        for _ in range(self._repeat):
            tasks, elapsed_s = self.run(pattern, steps, iterations)
            peaks.append(self._peak.rate())
            efficiencies.append(tasks * iterations / elapsed_s / statistics.mean(peaks[-2:]))
            granularities_s.append(elapsed_s * CORES / tasks)
        return {
            "kernel_us": kernel_s * 1e6,
            "efficiency": statistics.median(efficiencies),
            "granularity_us": statistics.median(granularities_s) * 1e6,
            "tasks": tasks,
            "peak_per_s": statistics.median(peaks),
        }

    def metg(self, pattern: str) -> dict[str, Any]:
        """METG(50 %) of a pattern, with the points that it was found between."""
        overhead_s = self.overhead_s(pattern)
        half_octave = math.log(2) / 2
        kernel_s = math.exp(math.ceil(math.log(2 * overhead_s) / half_octave) * half_octave)
        kernel_s = min(FIRST_KERNEL_S, max(SMALLEST_KERNEL_S, kernel_s))
        points: list[dict[str, float]] = []
        while True:
            points.append(self.point(pattern, kernel_s, kernel_s + overhead_s))
            points.sort(key=lambda point: point["kernel_us"])
            if points[0]["efficiency"] >= WANTED:
                kernel_s = points[0]["kernel_us"] / 1e6 / math.sqrt(2)
                if kernel_s < SMALLEST_KERNEL_S:
                    break
            elif points[-1]["efficiency"] < WANTED:
                kernel_s = points[-1]["kernel_us"] / 1e6 * 2
                if kernel_s > LARGEST_KERNEL_S:
                    break
            else:
                break
        return {"metg_us": crossing(points), "overhead_us": overhead_s * 1e6, "points": points}


def crossing(points: list[dict[str, float]]) -> float | None:
    """Granularity at which the efficiency is 50 %, between points in order of their size; None if it never is.

    Where noise makes it cross more than once, the crossing at the largest grain counts.
    """
    for low, high in reversed(list(itertools.pairwise(points))):
        if low["efficiency"] < WANTED <= high["efficiency"]:
            share = (WANTED - low["efficiency"]) / (high["efficiency"] - low["efficiency"])
            logs = [math.log(point["granularity_us"]) for point in (low, high)]
            return math.exp(logs[0] + share * (logs[1] - logs[0]))
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16, help="columns of a graph (default 16)")
    parser.add_argument("--seconds", type=float, default=0.1, help="about how long a measurement takes (default 0.1)")
    parser.add_argument("--repeat", type=int, default=9, help="measurements of each grain (default 9)")
    parser.add_argument("system")
    parser.add_argument("patterns", nargs="*", default=list(graphs.PATTERNS), help=", ".join(graphs.PATTERNS))
    options = parser.parse_args()
    folder = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))  # for workers
    with Peak() as peak, measure.system(options.system) as system:
        measure.warm_up(system)
        bench = Bench(system, peak, width=options.width, seconds=options.seconds, repeat=options.repeat)
        for pattern in options.patterns:
            found = bench.metg(pattern)
            print(json.dumps({"system": options.system, "case": pattern, "n": options.width, **found}), flush=True)


if __name__ == "__main__":
    main()
