"""Looks for faults: small jobs with wild delays, deaths and refusals, from seeds; every engine checks itself."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from typing import Any

from mpitask.errors import ConfigurationError
from mpitask.native import ffi, lib
from mpitask.sim.costs import shipped
from mpitask.sim.model import SHAPES

MAX_EVENTS = 20_000_000


class FaultError(AssertionError):
    """A seed for which something does not hold."""


def _options(rng: random.Random, seed: int) -> dict[str, Any]:
    """A job at the edge of what is allowed."""
    per_node = rng.choice([1, 2, 5])
    nodes = rng.choice([1, 1, 2, 3, 6, 14])
    shape = rng.choice(list(SHAPES.values()))
    options: dict[str, Any] = {
        "seed": seed,
        "nodes": nodes,
        "per_node": per_node,
        "workers": (nodes - 1) * per_node + rng.randint(1, per_node),
        "one_bank": rng.random() < 0.2,
        "fanout": rng.choice([1, 2, 3, 64]),
        "frame_bytes": rng.choice([256, 512, 4096, 131072]),
        "sends": rng.choice([0, 1, 2, 32]),
        "naps": rng.random() < 0.5,
        "bell_ns": rng.choice([0, 5_000, 1_000_000]),
        "latency_ns": rng.choice([0, 2_000, 200_000]),
        "byte_ps": rng.choice([0, 40, 100_000]),
        "jitter_ppm": rng.choice([0, 100_000, 2_000_000_000]),
        "submit_call_ns": rng.choice([0, 1_200, 500_000]),
        "inbox": rng.choice([1, 7, 16384]),
        "worker_overhead_ns": rng.choice([0, 10_000]),
        "detect_ns": rng.choice([0, 100_000, 50_000_000]),
        "start_at_once": rng.random() < 0.5,
        "refusals_ppm": rng.choice([0, 0, 100_000, 500_000]),
        "check": 1,
        "costs": shipped().costs_ps(),
        "work": {
            "seed": seed,
            "shape": shape,
            "width": rng.choice([1, 3, 17, 60]),
            "layers": rng.choice([1, 4, 12]),
            "task_us": rng.choice([0, 1, 50, 1_000, 20_000]),
            "spread_ppm": rng.choice([0, 500_000]),
            "args_bytes": rng.choice([4, 16, 1_000, 3_000]),
            "retries": rng.choice([0, 0, 2]),
            "losses": rng.choice([0, 1, 255]),
        },
    }
    if shape == lib.MT_SHAPE_LOGUNIFORM:  # up to a thousand times as long
        options["work"]["task_us"] //= 1000
    if rng.random() < 0.3:
        options |= {"submits_range": 1, "part_bytes": rng.choice([0, 36]), "submit_span_ns": rng.choice([0, 30_000])}
        options["work"]["shape"] = rng.choice([lib.MT_SHAPE_BAG, lib.MT_SHAPE_BAG, lib.MT_SHAPE_IMBALANCE])
    return options | {"cores": rng.choice([0, 0, 1, 3])}


def _plan_deaths(rng: random.Random, sim: Any, options: dict[str, Any]) -> None:
    work = options["work"]
    span_ns = 1_000_000 + 2_000 * work["task_us"] * work["width"] * work["layers"] // options["workers"]
    for _ in range(rng.choice([0, 0, 1, 3])):
        if lib.mt_sim_kill_node(sim, rng.randint(1, options["nodes"]), rng.randrange(span_ns)):
            raise FaultError("a node cannot be killed")
    for _ in range(0 if options["one_bank"] else rng.choice([0, 0, 2, 10])):
        node = rng.randint(1, options["nodes"])
        worker = rng.randrange(options["per_node"] if node < options["nodes"] else 1)
        if lib.mt_sim_kill_worker(sim, node, worker, rng.randrange(span_ns)):
            raise FaultError("a worker cannot be killed")


def play(seed: int) -> dict[str, int]:
    """One seed. What happened, for whoever wants to compare two runs.

    Raises:
        FaultError: something does not hold.
    """
    rng = random.Random(seed)
    alloc = lib.mt_alloc_test_new(0)
    options = _options(rng, seed)
    out = ffi.new("mt_sim **")
    status = lib.mt_sim_new(alloc, ffi.new("mt_sim_options *", options), out)
    if status != lib.MT_OK:
        raise FaultError(f"it cannot be built: {_text(status)}")
    sim = out[0]
    _plan_deaths(rng, sim, options)
    _expect("running", lib.mt_sim_run(sim, MAX_EVENTS))
    result = ffi.new("mt_sim_result *")
    lib.mt_sim_result_now(sim, result)
    total = options["work"]["width"] * options["work"]["layers"]
    _check_end(result, total)
    _expect("settling", lib.mt_sim_settle(sim))
    _expect("checking", lib.mt_sim_check(sim))
    if residue := lib.mt_sim_residue(sim):
        raise FaultError(f"{residue} jobs, objects or frames are left behind")
    events = int(result.events)
    facts = {"events": events, "end_ns": int(result.end_ns), "done": int(result.done), "lost": int(result.lost)}
    lib.mt_sim_destroy(sim)
    if live := lib.mt_alloc_test_live(alloc):
        raise FaultError(f"{live} pieces of memory are left")
    lib.mt_alloc_test_destroy(alloc)
    return facts


def _text(status: int) -> str:
    return str(ffi.string(lib.mt_status_text(status)).decode())


def _expect(doing: str, status: int) -> None:
    if status == 1:
        raise FaultError(f"{doing}: no end after {MAX_EVENTS} events")
    if status == lib.MT_E_STALE:
        raise FaultError(f"{doing}: nothing can happen any more, but tasks have not ended")
    if status != lib.MT_OK:
        raise FaultError(f"{doing}: {_text(status)}")


def _check_end(result: Any, total: int) -> None:
    ended = result.done + result.failed + result.dependency_failed + result.cancelled
    if result.outstanding or ended != result.submitted:
        raise FaultError(f"{result.submitted} tasks submitted, {ended} ended, {result.outstanding} left")
    if result.is_hopeless:
        return
    if result.submitted != total:
        raise FaultError(f"{result.submitted} of {total} tasks submitted")
    if not (result.nodes_killed or result.workers_killed) and result.done != total:
        raise FaultError(f"nobody died, but only {result.done} of {total} tasks are done")
    if result.cancelled:
        raise FaultError(f"{result.cancelled} tasks cancelled by nobody")


def command(seed: int) -> str:
    """What replays a seed."""
    return f"python -m mpitask.sim explore --seeds {seed}:{seed + 1}"


def sweep(seeds: range) -> int:
    """Plays all seeds; how many tasks were done.

    Raises:
        FaultError: naming the first seed that fails, and the command that replays it.
    """
    done = 0
    for seed in seeds:
        try:
            done += play(seed)["done"]
        except FaultError as error:
            raise FaultError(f"seed {seed}: {error}; replay it with: {command(seed)}") from error
    return done


def main(argv: Sequence[str]) -> int:
    """The subcommand `explore`; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mpitask.sim explore", description=__doc__)
    parser.add_argument("--seeds", metavar="A:B", default="0:200", help="from A up to B (%(default)s)")
    first, _, last = parser.parse_args(argv).seeds.partition(":")
    if not (first.isdigit() and last.isdigit()):
        raise ConfigurationError(f"--seeds {first}:{last}: give two numbers, as in 0:200")
    try:
        done = sweep(range(int(first), int(last)))
    except FaultError as error:
        print(f"mpitask.sim: {error}", file=sys.stderr)
        return 1
    print(f"{int(last) - int(first)} seeds, {done} tasks done, no fault found")
    return 0
