"""The command line of the simulator: `python -m mpitask.sim`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mpitask.errors import ConfigurationError
from mpitask.sim import costs, explore, plot, text
from mpitask.sim.model import SHAPES, SUBMISSIONS, Job, run

USAGE_ERROR = 2
PROGRESS_EVERY_S = 5.0

_EPILOG = """\
examples:
  python -m mpitask.sim --workers 262144 --per-node 32 --task-seconds 1 --tasks-per-worker 10
  python -m mpitask.sim --workers 4096 --task-seconds 0.01 --kill-nodes 3 --seed 7 --json
  python -m mpitask.sim calibrate         measures what the engine costs on this machine
  python -m mpitask.sim explore --seeds 0:1000     looks for faults: delays, deaths, refusals
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message}\n(python -m mpitask.sim --help shows all options)")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mpitask.sim",
        description="Simulates a job in virtual time: real engines, virtual workers, a modelled network.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--workers", metavar="N", type=int, required=True, help="workers of all nodes together")
    add("--per-node", metavar="N", type=int, default=Job.per_node, help="workers of each node (%(default)s)")
    add("--fanout", metavar="K", type=int, default=Job.fanout, help="children of a rank (%(default)s)")
    add("--task-seconds", metavar="S", type=float, default=Job.task_seconds, help="duration of a task (%(default)s)")
    add("--tasks-per-worker", metavar="N", type=int, default=Job.tasks_per_worker, help="(%(default)s)")
    add("--shape", choices=sorted(SHAPES), default=Job.shape, help="what depends on what (%(default)s)")
    add("--spread", metavar="X", type=float, default=Job.spread, help="durations vary by this share (%(default)s)")
    add("--args-bytes", metavar="N", type=int, default=Job.args_bytes, help="arguments of a task (%(default)s)")
    add("--latency-us", metavar="US", type=float, default=Job.latency_us, help="network, one way (%(default)s)")
    add("--bandwidth-gb", metavar="GB", type=float, default=Job.bandwidth_gb, help="network, GB/s (%(default)s)")
    add(
        "--jitter", metavar="X", type=float, default=Job.jitter, help="latencies grow by up to this share (%(default)s)"
    )
    add(
        "--submit",
        choices=SUBMISSIONS,
        default=Job.submit,
        help="a call for each task, or map(f, range(n)) (%(default)s)",
    )
    add("--submit-us", metavar="US", type=float, help="the script's time for each call or span; 0: none (calibrated)")
    add("--worker-overhead-us", metavar="US", type=float, help="a worker's time beside each task (calibrated)")
    add("--bell-us", metavar="US", type=float, help="until a sleeping rank runs (calibrated)")
    add("--cores", metavar="N", type=int, help="cores that all ranks and the script share (a core for each)")
    add("--no-naps", dest="naps", action="store_false", help="idle ranks look all the time (--progress spin)")
    add(
        "--one-lane", action="store_true", help="one lane with many slots for each node, instead of one for each worker"
    )
    add("--frame-kb", metavar="KB", type=int, default=Job.frame_kb, help="size of a frame (%(default)s)")
    add("--kill-nodes", metavar="N", type=int, default=Job.kill_nodes, help="nodes that die at random times")
    add("--detect-ms", metavar="MS", type=float, default=Job.detect_ms, help="until a death is noticed (%(default)s)")
    add("--losses", metavar="N", type=int, default=Job.losses, help="new attempts at a lost task (%(default)s)")
    add("--seed", metavar="S", type=int, default=Job.seed, help="(%(default)s)")
    add("--calibration", metavar="FILE", type=Path, help="costs; `shipped` for those of the package")
    add("--json", action="store_true", help="one JSON object on standard output")
    add("--plot", metavar="FILE", type=Path, help="a picture: .png (needs matplotlib) or .svg")
    add("--quiet", action="store_true", help="no progress on standard error")
    return parser


def _calibration(path: Path | None) -> costs.Calibration:
    """The one asked for; else this user's; else the package's."""
    if path is None:
        path = costs.user_file() if costs.user_file().exists() else Path("shipped")
    return costs.shipped() if path == Path("shipped") else costs.read(path)


def _reporter(job: Job) -> Callable[[dict[str, Any]], None]:
    total, last = job.workers * job.tasks_per_worker, [time.monotonic()]

    def report(now: dict[str, Any]) -> None:
        if time.monotonic() - last[0] >= PROGRESS_EVERY_S:
            last[0] = time.monotonic()
            print(f"simulating: {now['ended']:,} of {total:,} tasks have ended", file=sys.stderr, flush=True)

    return report


def _simulate(argv: Sequence[str]) -> None:
    options = vars(_make_parser().parse_args(argv))
    as_json, picture, quiet = options.pop("json"), options.pop("plot"), options.pop("quiet")
    calibration = _calibration(options.pop("calibration"))
    job = Job(**options)
    if picture is not None:
        plot.check(picture)
    report = run(job, calibration, None if quiet else _reporter(job))
    print(json.dumps(report) if as_json else text.of(report))
    if picture is not None:
        plot.draw(report, picture)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["calibrate"]:
            from mpitask.sim import calibrate

            return calibrate.main(words[1:])
        if words[:1] == ["explore"]:
            return explore.main(words[1:])
        _simulate(words)
    except ConfigurationError as error:
        print(f"mpitask.sim: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
