"""Cores and accelerators of worker processes, as a kernel's own engine hands them down in the environment."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping

ACCELERATORS = "MPITASK_COMPAT_ACCELERATORS"
AFFINITY = "MPITASK_COMPAT_AFFINITY"

_log = logging.getLogger("mpitask")


def hand_down(variables: Mapping[str, str]) -> None:
    """Has processes that start from now on find these variables, and none of an earlier kernel.

    They stay: the engine starts its workers when it likes.
    """
    for name in (ACCELERATORS, AFFINITY):
        os.environ.pop(name, None)
    os.environ.update(variables)


def pin(index: int) -> None:
    """In a new worker process: gives it the accelerator and the cores of the worker with this number."""
    names = json.loads(os.environ.pop(ACCELERATORS, "[]"))
    if names:
        name = names[index % len(names)]
        for variable in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"):
            os.environ[variable] = name
    spec = os.environ.pop(AFFINITY, "none")
    if spec != "none":
        try:
            mine = cores_of(spec, index, int(os.environ["PARSL_WORKER_COUNT"]), sorted(os.sched_getaffinity(0)))
            os.sched_setaffinity(0, mine)
        except (OSError, ValueError) as error:
            _log.warning("cpu_affinity=%r has no effect: %s", spec, error)


def cores_of(spec: str, index: int, workers: int, cores: list[int]) -> set[int]:
    """The cores of a worker.

    Args:
        spec: "block", "block-reverse", "alternating", or "list:0-3:4,5", with a part for each worker.
        index: the worker's number.
        workers: how many there are.
        cores: those that may be used.

    Raises:
        ValueError: the specification is wrong, or there are more workers than cores.
    """
    kind, *parts = spec.split(":")
    if kind == "list" and parts:
        return {core for piece in parts[index % len(parts)].split(",") for core in _range(piece)}
    share = len(cores) // workers
    if not share:
        raise ValueError(f"{workers} workers cannot have cores of their own: there are {len(cores)}")
    if kind == "alternating":
        return set(cores[index % workers :: workers])
    if kind not in ("block", "block-reverse"):
        raise ValueError("give 'none', 'block', 'block-reverse', 'alternating' or 'list:0-3:4-7'")
    ordered = cores if kind == "block" else cores[::-1]
    return set(ordered[index % workers * share :][:share])


def _range(piece: str) -> range:
    first, _, last = piece.partition("-")
    return range(int(first), int(last or first) + 1)
