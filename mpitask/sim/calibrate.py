"""Measures what the parts of the engine cost on this machine, for the simulator.

Each number is the lower quartile of many short rounds: other programs make rounds longer, nothing makes them shorter.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from mpitask._version import __version__
from mpitask.apps import python_app
from mpitask.config import Config
from mpitask.engine import load
from mpitask.native import check, ffi, lib
from mpitask.sim import costs

ROUNDS = 60
TASKS = 2048
BATCH = 512
BACKLOG = 1 << 18
BACKLOG_ROUNDS = 8
SHORT_NS, BACKLOG_NS = 1_000, 600_000
"""What workers say that a task took: short ones go down in batches, of the others no more than the rings hold."""
SMALL_ARGS, LARGE_ARGS = 16, 1016
SMALL_VALUE, LARGE_VALUE = 8, 1016
SUBMISSIONS, SPANS = 500, 200
FIRST_NAP_S, TIMER_SLACK_NS = 20e-6, "1000"
LIBRARY_NS = 500.0
"""What the library needs to send or receive a small message (LogGP: o). Assumed: see docs/simulator.md."""
PHASES = ("submit", "assign", "take", "forward", "result", "end")


def _quartile(values: list[float]) -> float:
    return statistics.quantiles(values, n=4, method="inclusive")[0] if len(values) > 1 else values[0]


def _rounds(
    rounds: int,
    *,
    batch: int = BATCH,
    args_bytes: int = SMALL_ARGS,
    pairs: bool = False,
    duration_ns: int = SHORT_NS,
    span: bool = False,
    value_bytes: int = SMALL_VALUE,
) -> dict[str, float]:
    """Nanoseconds for each task in each phase, without the clock's own time; bytes for each task; ns for a look."""
    seen: dict[str, list[float]] = {}
    clock_ns = _quartile([lib.mt_calibrate_clock(1000) / 1000 for _ in range(rounds)])
    for _ in range(rounds):
        t = ffi.new("mt_timings *")
        tasks = max(batch, TASKS if batch > 1 else TASKS // 4)
        plan = ffi.new("mt_calibrate_plan *", [tasks, batch, args_bytes, pairs, span, value_bytes, duration_ns])
        check(lib.mt_calibrate(lib.mt_alloc_default(), plan, t), "calibrating")
        for phase in PHASES:
            readings = t.tasks / batch if phase == "submit" else t.frames
            seen.setdefault(phase, []).append(max(0.0, getattr(t, f"{phase}_ns") - clock_ns * readings) / t.tasks)
        seen.setdefault("look", []).append(t.look_ns / t.looks)
        seen.setdefault("bytes_down", []).append(t.bytes_down / t.tasks)
        seen.setdefault("bytes_up", []).append(t.bytes_up / t.tasks)
        seen.setdefault("joined_bytes", []).append(t.joined_bytes / t.tasks)
    return {name: _quartile(values) for name, values in seen.items()}


def _bell(wakes: int) -> tuple[float, float]:
    """Nanoseconds to ring a bell that somebody sleeps on, and until that one runs."""
    ring, woken = ffi.new("uint64_t[]", wakes), ffi.new("uint64_t[]", wakes)
    check(lib.mt_calibrate_bell(wakes, ring, woken), "waking a thread")
    return _quartile([float(x) for x in ring]), _quartile([float(x) for x in woken if x > 0] or [0.0])


def _naps(naps: int) -> tuple[float, float]:
    """Nanoseconds of processor time to fall asleep and to wake up again, and by which a short nap is too long."""
    slack = Path("/proc/self/timerslack_ns")
    before = slack.read_text()
    slack.write_text(TIMER_SLACK_NS)  # as engine threads have it
    spent, late = [], []
    for _ in range(naps):
        began, began_cpu = time.perf_counter_ns(), time.thread_time_ns()
        time.sleep(FIRST_NAP_S)
        spent.append(float(time.thread_time_ns() - began_cpu))
        late.append(time.perf_counter_ns() - began - FIRST_NAP_S * 1e9)
    slack.write_text(before)
    return _quartile(spent), _quartile(late)


def engine_costs(rounds: int = ROUNDS, backlog: int = BACKLOG) -> tuple[dict[str, float], float, float]:
    """Nanoseconds: the engine's costs by the names of mt_sim_costs, a thread's wake-up, and how late naps end."""
    lib.mt_keep_freed_memory(512 << 20)  # as every engine does
    many = _rounds(rounds)
    single = _rounds(rounds, batch=1)
    large = _rounds(rounds, args_bytes=LARGE_ARGS)
    paired = _rounds(rounds, pairs=True)
    parts = _rounds(rounds, span=True)
    large_parts = _rounds(rounds, span=True, value_bytes=LARGE_VALUE)
    # The root of a large job holds more tasks than its caches: what it does with each is measured in such a state.
    cold = _rounds(BACKLOG_ROUNDS, batch=backlog, duration_ns=BACKLOG_NS)

    def without_bytes(ns: float, bytes_ns: float) -> float:
        return max(ns / 2, ns - bytes_ns)

    def fixed(*phases: str) -> float:
        return max(0.0, sum(single[phase] - many[phase] for phase in phases))

    bytes_grown = large["bytes_down"] - many["bytes_down"]
    byte_out = max(0.0, large["assign"] - many["assign"]) / bytes_grown
    byte_in = max(0.0, large["take"] - many["take"]) / bytes_grown
    look = many["look"]
    root = ("submit", "assign", "end")
    edge = 2 * max(0.0, sum(paired[phase] - many[phase] for phase in root))
    nap_ns, late_ns = _naps(max(20, rounds))
    ring_ns, woken_ns = _bell(max(20, rounds))
    # A batch of one is a frame down, a step of the agent, a frame up and two steps of the root. The agent looks at its
    # lanes when it forwards and when it answers: that is the cost of lanes, not of tasks.
    lanes_ns = fixed("forward", "result")
    return (
        {
            "step": max(50.0, min(lanes_ns, 1000.0) / 4),
            "lane": look,
            "frame_in": fixed("take") + LIBRARY_NS,
            "frame_out": fixed("assign") + LIBRARY_NS,
            "byte_in": byte_in,
            "byte_out": byte_out,
            "submit": cold["submit"],
            "edge": edge,
            "assign": without_bytes(cold["assign"], byte_out * cold["bytes_down"]),
            "end": without_bytes(cold["end"], byte_in * cold["bytes_up"]),
            "take": without_bytes(many["take"], byte_in * many["bytes_down"]),
            "forward": many["forward"],
            "result": many["result"],
            "cut": parts["forward"],
            "collect": parts["result"],
            "byte_join": max(0.0, large_parts["result"] - parts["result"])
            / (large_parts["joined_bytes"] - parts["joined_bytes"]),
            "nap": nap_ns + 2 * LIBRARY_NS,
            "wake": ring_ns,
        },
        woken_ns,
        late_ns,
    )


def _cpu_of_children() -> float:
    """Seconds of processor time of the worker and its zygote: the kernel's fine count, where it keeps one."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            total += int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
        except OSError:
            times = process.cpu_times()
            total += times.user + times.system
    return total


def python_costs(tasks: int = 20_000) -> tuple[float, float, float]:
    """Microseconds of processor time for a call by the script, for a span of `map`, and for a task in its worker."""

    @python_app
    def nothing(_: int) -> None: ...

    def nothing_of_a_range(*_: int) -> None: ...

    with load(Config(workers=1)) as engine:
        for future in [nothing(i) for i in range(1000)]:
            future.result()
        submit, span, worker = [], [], []
        for _ in range(4):
            before = _cpu_of_children()
            for _ in range(tasks // SUBMISSIONS):
                began = time.thread_time()
                futures = [nothing(i) for i in range(SUBMISSIONS)]
                submit.append((time.thread_time() - began) / SUBMISSIONS)
                for future in futures:
                    future.result()
            worker.append((_cpu_of_children() - before) / tasks)
        fn_id = engine.function_id(nothing_of_a_range)
        for _ in range(ROUNDS):
            began = time.thread_time()
            futures = [engine.call_span(fn_id, i, 1, (0, 1, "")) for i in range(SPANS)]
            span.append((time.thread_time() - began) / SPANS)
            for future in futures:
                future.result()
    return _quartile(submit) * 1e6, _quartile(span) * 1e6, min(worker) * 1e6


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Linux {platform.release()}"


def calibrate(rounds: int = ROUNDS) -> costs.Calibration:
    """Measures everything."""
    engine_ns, woken_ns, late_ns = engine_costs(rounds)
    submit_us, span_us, worker_us = python_costs()
    return costs.Calibration(
        machine=_machine(),
        engine_ns={name: round(engine_ns[name], 4) for name in costs.ENGINE},
        submit_call_us=round(submit_us, 3),
        submit_span_us=round(span_us, 3),
        worker_overhead_us=round(worker_us, 3),
        nap_late_us=round(late_ns / 1000, 3),
        bell_us=round(woken_ns / 1000, 3),
        notes={
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "mpitask": __version__,
            "python": platform.python_version(),
            "library_ns": LIBRARY_NS,
            "library_ns_is": "assumed, not measured",
        },
    )


def main(argv: Sequence[str]) -> int:
    """The subcommand `calibrate`; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mpitask.sim calibrate", description=__doc__)
    parser.add_argument("--out", metavar="FILE", type=Path, default=costs.user_file(), help="(%(default)s)")
    parser.add_argument("--rounds", metavar="N", type=int, default=ROUNDS, help="(%(default)s)")
    options = parser.parse_args(argv)
    calibration = calibrate(max(2, options.rounds))
    costs.write(calibration, options.out)
    for name in costs.ENGINE:
        print(f"{name:10s} {calibration.engine_ns[name]:10.3f} ns")
    for name in ("submit_call_us", "submit_span_us", "worker_overhead_us", "nap_late_us", "bell_us"):
        print(f"{name:20s} {getattr(calibration, name):8.3f}")
    print(f"written to {options.out}", file=sys.stderr)
    return 0
