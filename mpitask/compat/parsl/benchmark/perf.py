"""`parsl.benchmark.perf`: how many tasks per second a configuration does.

`python -m mpitask --parsl "$(command -v parsl-perf)" --config FILE`, where Parsl's own command is installed, or
`python -m mpitask.compat.parsl.benchmark.perf --config FILE`. What is printed is what Parsl's prints.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.util
import time
from collections.abc import Iterator
from typing import Any

from mpitask.compat import parsl
from mpitask.compat.parsl.app.app import python_app
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel, load
from mpitask.compat.parsl.version import VERSION

VALID_NAMED_ITERATION_MODES = ("estimate", "exponential")

min_iterations = 2

_FIRST_TASKS = 10
_ENOUGH = 0.75  # of the time that an iteration should take


def load_dfk_from_config(filename: str) -> DataFlowKernel:
    """Loads what a file defines as `config`, or gives as `fresh_config()`.

    Raises:
        RuntimeError: it does neither, or is no Python file.
    """
    spec = importlib.util.spec_from_file_location("", filename)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"Could not load configuration: {filename!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if hasattr(module, "config"):
        return load(module.config)
    if hasattr(module, "fresh_config"):
        return load(module.fresh_config())
    raise RuntimeError("Config module does not define config or fresh_config")


@python_app
def app(extra_payload: Any, parsl_resource_specification: dict[str, Any] = {}) -> int:  # noqa: ARG001, B006
    """The task."""
    return 7


def _sizes(mode: str | list[int], target_t: float) -> Iterator[int]:
    """Numbers of tasks; each iteration sends what it took, in seconds."""
    if isinstance(mode, list):
        for n in mode:
            yield n
        return
    n, iterations = _FIRST_TASKS, 0
    while True:
        took: Any = yield n
        iterations += 1
        wanted = _ENOUGH * target_t if mode == "estimate" else target_t
        if took >= wanted and iterations >= min_iterations:
            return
        n = max(1, int(target_t * n / took)) if mode == "estimate" else 2 * n


def performance(*, resources: dict[str, Any], target_t: float, args_extra_size: int, iterate_mode: Any) -> None:
    """Runs iterations until one takes about `target_t` seconds; prints rates."""
    payload = "x" * args_extra_size
    sizes: Any = _sizes(iterate_mode, target_t)
    took: float | None = None
    iteration = 0
    while True:
        try:
            n = sizes.send(took)
        except StopIteration:
            return
        iteration += 1
        took = _iteration(iteration, n, payload, resources, target_t)


def _iteration(number: int, n: int, payload: str, resources: dict[str, Any], target_t: float) -> float:
    print(f"==== Iteration {number} ====")
    print(f"Will run {n} tasks")
    start_s = time.time()
    print("Submitting tasks / invoking apps")
    futures = [app(payload, parsl_resource_specification=resources) for _ in range(n)]
    submitted_s = time.time()
    print(f"All {n} tasks submitted ... waiting for completion")
    seconds = submitted_s - start_s
    print(f"Submission took {seconds:.3f} seconds = {n / seconds:.3f} tasks/second")
    for future in concurrent.futures.as_completed(futures):
        if future.result() != 7:
            raise RuntimeError(f"{future!r} has given {future.result()!r}")
    took = time.time() - start_s
    print(f"Runtime: actual {took:.3f}s vs target {target_t}s")
    print(f"Tasks per second: {n / took:.3f}")
    return took


def validate_int_list(v: str) -> list[int] | bool:
    """Numbers with commas between them, or False."""
    try:
        return [int(word) for word in v.split(",")]
    except ValueError:
        return False


def iteration_mode(v: str) -> str | list[int]:
    """The value of `--iterate`.

    Raises:
        ArgumentTypeError: it is none.
    """
    if v in VALID_NAMED_ITERATION_MODES:
        return v
    numbers = validate_int_list(v)
    if isinstance(numbers, list):
        return numbers
    raise argparse.ArgumentTypeError(f"Invalid iteration mode: {v}")


def cli_run() -> None:
    """The command `parsl-perf`."""
    parser = argparse.ArgumentParser(
        prog="parsl-perf",
        description="Measure performance of Parsl configurations",
        epilog="example: --config my_config.py --time 10 --resources '{\"priority\": 1}'",
    )
    parser.add_argument("--config", required=True, help="path to Python file that defines a configuration")
    parser.add_argument("--resources", metavar="EXPR", help="parsl_resource_specification dictionary")
    parser.add_argument(
        "--time", metavar="SECONDS", help="target number of seconds for an iteration", default=120, type=float
    )
    parser.add_argument(
        "--argsize", metavar="BYTES", help="extra bytes to add into app invocation arguments", default=0, type=int
    )
    parser.add_argument("--version", action="version", version=f"parsl-perf from Parsl {VERSION}")
    parser.add_argument(
        "--iterate",
        metavar="MODE",
        help=f"Iteration mode: {', '.join(VALID_NAMED_ITERATION_MODES)}, or sequence of explicit sizes",
        type=iteration_mode,
        default="estimate",
    )
    args = parser.parse_args()
    resources = eval(args.resources) if args.resources else {}
    with load_dfk_from_config(args.config):
        performance(resources=resources, target_t=args.time, args_extra_size=args.argsize, iterate_mode=args.iterate)
        print("Tests complete - leaving DFK block")
    print("The end")


if __name__ == "__main__":
    parsl.install()
    cli_run()
