"""One simulated job: options in, a result out. The work is done by csrc/sim.c.

Everything in a result but what stands under `wall` is simulated, and the same for the same options wherever it runs.
"""

from __future__ import annotations

import dataclasses
import random
import resource
import time
from collections.abc import Callable
from typing import Any

from mpitask._version import __version__
from mpitask.errors import ConfigurationError, InternalError
from mpitask.native import check, ffi, lib
from mpitask.sim.costs import Calibration, shipped

SHAPES = {
    "bag": lib.MT_SHAPE_BAG,
    "chain": lib.MT_SHAPE_CHAIN,
    "stencil": lib.MT_SHAPE_STENCIL,
    "imbalance": lib.MT_SHAPE_IMBALANCE,
    "loguniform": lib.MT_SHAPE_LOGUNIFORM,
}
SUBMISSIONS = ("calls", "range")
PART_BYTES = 36
"""What the value of a span's part is made of beside a byte for each None."""
EVENTS_AT_A_TIME = 200_000
MAX_TASK_S = 1000.0
MAX_WORKERS = 1 << 24
MAX_CORES = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What is simulated.

    Attributes:
        workers: of all nodes together.
        per_node: of each node; the last one may have fewer.
        fanout: children of a rank.
        task_seconds: how long a task takes; with shape "imbalance" the mean, with
            "loguniform" the least of durations up to a thousand times that.
        tasks_per_worker: times `workers` is the number of tasks; the length of a chain, the layers of a stencil.
        shape: bag, chain, stencil, imbalance or loguniform.
        spread: the share by which durations vary evenly to both sides, 0 to 1.
        args_bytes: arguments of each task.
        latency_us: of the network, one way (LogGP: L).
        bandwidth_gb: of the network, in 10^9 bytes per second (LogGP: 1 / G).
        jitter: each message takes up to this share of the latency longer.
        submit: "calls", one for each task, or "range": `map` over a range, whose spans the engines cut.
        submit_us: what the script needs for a call or a span; None: as calibrated; 0: nothing.
        worker_overhead_us: what a worker needs for each task beyond the task itself.
        cores: that the ranks of the job and the script share; None: each has a core of its own.
        naps: idle ranks sleep as the real ones do; False: they look all the time.
        bell_us: until a sleeping rank runs after its bell.
        one_lane: each node has one lane with many slots instead of a lane for each worker.
        frame_kb: size of a frame.
        kill_nodes: nodes that die at random times, and all that hangs on them in the tree.
        detect_ms: from a node's death until its parent knows.
        losses: how often a task is tried again after the loss of its node.
        seed: of everything that is drawn.
    """

    workers: int
    per_node: int = 32
    fanout: int = 64
    task_seconds: float = 1.0
    tasks_per_worker: int = 10
    shape: str = "bag"
    spread: float = 0.0
    args_bytes: int = 16
    latency_us: float = 2.0
    bandwidth_gb: float = 25.0
    jitter: float = 0.1
    submit: str = "calls"
    submit_us: float | None = None
    worker_overhead_us: float | None = None
    cores: int | None = None
    naps: bool = True
    bell_us: float | None = None
    one_lane: bool = False
    frame_kb: int = 64
    kill_nodes: int = 0
    detect_ms: float = 100.0
    losses: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "workers": (1, MAX_WORKERS),
            "per_node": (1, 65536),
            "fanout": (1, 65536),
            "tasks_per_worker": (1, 1_000_000),
            "task_seconds": (1e-6, MAX_TASK_S / 1000 if self.shape == "loguniform" else MAX_TASK_S),
            "spread": (0, 1),
            "args_bytes": (4, 65536),
            "latency_us": (0, 1e6),
            "bandwidth_gb": (0.001, 1000),
            "jitter": (0, 1000),
            "frame_kb": (1, 65536),
            "kill_nodes": (0, self.nodes),
            "detect_ms": (0, 1e6),
            "losses": (0, 255),
            "seed": (0, 2**62),
        }
        bounds |= {
            name: (0, 1e6) for name in ("submit_us", "worker_overhead_us", "bell_us") if getattr(self, name) is not None
        }
        if self.cores is not None:
            bounds["cores"] = (1, MAX_CORES)
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(f"{name} = {value}: must lie between {low:g} and {high:g}")
        if self.shape not in SHAPES:
            raise ConfigurationError(f"shape = {self.shape!r}: must be one of {', '.join(SHAPES)}")
        if self.submit not in SUBMISSIONS:
            raise ConfigurationError(f"submit = {self.submit!r}: must be one of {', '.join(SUBMISSIONS)}")
        if self.submit == "range" and self.shape in ("chain", "stencil"):
            raise ConfigurationError(f"shape = {self.shape!r}: the items of a range do not depend on each other")

    @property
    def nodes(self) -> int:
        """Ranks with workers."""
        return -(-self.workers // self.per_node)


def _options(job: Job, calibration: Calibration) -> dict[str, Any]:
    def ns(us: float | None, default_us: float) -> int:
        return round((default_us if us is None else us) * 1000)

    return {
        "seed": job.seed,
        "nodes": job.nodes,
        "per_node": job.per_node,
        "workers": job.workers,
        "one_bank": job.one_lane,
        "fanout": job.fanout,
        "frame_bytes": job.frame_kb * 1024,
        "cores": job.cores or 0,
        "naps": job.naps,
        "nap_late_ns": ns(None, calibration.nap_late_us),
        "bell_ns": ns(job.bell_us, calibration.bell_us),
        "latency_ns": ns(job.latency_us, 0),
        "byte_ps": round(1000 / job.bandwidth_gb),
        "jitter_ppm": round(job.jitter * 1e6),
        "submits_range": job.submit == "range",
        "part_bytes": PART_BYTES,
        "submit_call_ns": ns(job.submit_us, calibration.submit_call_us),
        "submit_span_ns": ns(job.submit_us, calibration.submit_span_us),
        "inbox": 1 << 14,
        "worker_overhead_ns": ns(job.worker_overhead_us, calibration.worker_overhead_us),
        "detect_ns": round(job.detect_ms * 1e6),
        "costs": calibration.costs_ps(),
        "work": _work(job),
    }


def _work(job: Job) -> dict[str, Any]:
    return {
        "seed": job.seed,
        "shape": SHAPES[job.shape],
        "width": job.workers,
        "layers": job.tasks_per_worker,
        "task_us": max(1, round(job.task_seconds * 1e6)),
        "spread_ppm": round(job.spread * 1e6),
        "args_bytes": job.args_bytes,
        "losses": job.losses,
    }


def durations(job: Job) -> list[float]:
    """Seconds that each task of a job takes, in the order of submission."""
    n = job.workers * job.tasks_per_worker
    out = ffi.new("uint32_t[]", n)
    options = ffi.new("mt_workload_options *", _work(job))
    check(lib.mt_workload_durations(lib.mt_alloc_default(), options, out, n), "drawing durations")
    return [us / 1e6 for us in ffi.unpack(out, n)]


def run(
    job: Job, calibration: Calibration | None = None, progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Simulates a job to its end.

    Args:
        job: what is simulated.
        calibration: what the parts of the engine cost; None: the one that comes with the package.
        progress: is called now and then with a few simulated numbers.

    Raises:
        ConfigurationError: an option is out of range.
    """
    calibration = calibration or shipped()
    began = time.perf_counter()
    options = ffi.new("mt_sim_options *", _options(job, calibration))
    out = ffi.new("mt_sim **")
    arena = ffi.gc(_arena(), lib.mt_arena_destroy)
    check(lib.mt_sim_new(arena, options, out), "building the simulation")
    sim = out[0]
    try:
        _plan_deaths(sim, job)
        result = ffi.new("mt_sim_result *")
        while (status := lib.mt_sim_run(sim, EVENTS_AT_A_TIME)) == 1:
            if progress is not None:
                lib.mt_sim_result_now(sim, result)
                progress({"events": result.events, "ended": _ended(result), "submitted": result.submitted})
        if status == lib.MT_E_STALE:
            raise InternalError("the simulated job stands still: tasks are left, but nothing can happen any more")
        check(status, "simulating")
        check(lib.mt_sim_check(sim), "checking the simulated engines")
        lib.mt_sim_result_now(sim, result)
        levels = [lib.mt_sim_level_now(sim, i) for i in range(result.levels)]
        report = _report(job, calibration, result, levels)
    finally:
        lib.mt_sim_destroy(sim)
    report["wall"] = {
        "seconds": round(time.perf_counter() - began, 3),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    return report


def _arena() -> Any:
    arena = lib.mt_arena_new()
    if not arena:
        raise MemoryError
    return arena


def _plan_deaths(sim: Any, job: Job) -> None:
    """Draws nodes and times: evenly over the time that the job would take on perfect machines."""
    rng = random.Random(job.seed)
    ideal_ns = int(job.task_seconds * job.tasks_per_worker * 1e9)
    for node in rng.sample(range(1, job.nodes + 1), job.kill_nodes):
        check(lib.mt_sim_kill_node(sim, node, rng.randrange(max(1, ideal_ns))), "planning deaths")


def _ended(result: Any) -> int:
    return int(result.done + result.failed + result.dependency_failed + result.cancelled)


def _share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0


def _report(job: Job, calibration: Calibration, result: Any, levels: list[Any]) -> dict[str, Any]:
    makespan_ns = result.end_ns - result.start_ns
    makespan_s = makespan_ns / 1e9
    capacity_ns = job.workers * makespan_ns
    done = result.useful_ns / capacity_ns if capacity_ns else 0.0
    overhead_us = calibration.worker_overhead_us if job.worker_overhead_us is None else job.worker_overhead_us
    overhead = (result.runs if job.submit == "range" else result.done) * overhead_us * 1e3
    ranks_ns = [level.ranks * makespan_ns for level in levels]
    relays = [level for level in levels[1:] if level.ranks]
    return {
        "simulated": True,
        "efficiency": round(done, 6),
        "makespan_s": round(makespan_s, 9),
        "tasks_per_s": round(_ended(result) / makespan_s, 6) if makespan_s else 0.0,
        "seed": job.seed,
        "workers": job.workers,
        "nodes": job.nodes,
        "ranks": job.nodes + 1,
        "fanout": job.fanout,
        "depth": len(levels) - 1,
        "tasks": {
            "submitted": result.submitted,
            "done": result.done,
            "failed": result.failed,
            "dependency_failed": result.dependency_failed,
            "cancelled": result.cancelled,
            "attempts_lost": result.lost,
        },
        "startup_s": result.slots_ns / 1e9,
        "nodes_killed": result.nodes_killed,
        "hopeless": bool(result.is_hopeless),
        "workers_left": result.slots,
        "root_utilisation": _share(levels[0].cpu_ns, makespan_ns),
        "script_blocked_s": result.script_blocked_ns / 1e9,
        "most_tasks_at_root": result.most_outstanding,
        "time": {
            "workers": {
                "running": round(done, 6),
                "overhead": _share(overhead, capacity_ns),
                "idle": round(1 - done - _share(overhead, capacity_ns), 6),
            },
            "root_cpu": _split(levels[0], ranks_ns[0]),
            "agents_cpu": {
                key: _share(sum(getattr(x, name) for x in relays), sum(ranks_ns[1:])) for key, name in _CPU.items()
            },
            "network": {
                "mean_flight_us": round(
                    sum(x.flight_ns for x in levels) / max(1, sum(x.frames_out for x in levels)) / 1e3, 3
                ),
                "mean_wait_us": round(
                    sum(x.waited_ns for x in levels) / max(1, sum(x.frames_in for x in levels)) / 1e3, 3
                ),
            },
        },
        "levels": [_level(x, makespan_ns) for x in levels],
        "running": {
            "seconds": result.bucket_ns / 1e9,
            "workers": [
                round(max(0.0, x), 3) for x in list(result.running)[: -(-makespan_ns // max(1, result.bucket_ns))]
            ],
        },
        "options": dataclasses.asdict(job),
        "calibration": calibration.as_dict(),
        "versions": {"mpitask": __version__},
    }


_CPU = {"busy": "cpu_ns", "tasks": "cpu_tasks_ns", "frames": "cpu_frames_ns"}


def _split(level: Any, of_ns: float) -> dict[str, float]:
    return {key: _share(getattr(level, name), of_ns) for key, name in _CPU.items()}


def _level(level: Any, makespan_ns: int) -> dict[str, Any]:
    seconds = makespan_ns / 1e9 or 1.0
    return {
        "ranks": level.ranks,
        "workers": level.workers,
        "utilisation": _share(level.cpu_ns, level.ranks * makespan_ns),
        "busiest_utilisation": _share(level.busiest_ns, makespan_ns),
        "steps": level.steps,
        "frames_per_s": round((level.frames_in + level.frames_out) / seconds, 1),
        "bytes_per_s": round((level.bytes_in + level.bytes_out) / seconds, 1),
        "max_queue": level.max_queue,
        "frames_in": level.frames_in,
        "frames_out": level.frames_out,
        "tasks_in": level.tasks_in,
        "tasks_out": level.tasks_out,
        "results_in": level.results_in,
        "mean_wait_us": round(level.waited_ns / max(1, level.frames_in) / 1e3, 3),
    }
