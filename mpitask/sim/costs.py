"""What the parts of the engine cost: measured on some machine, kept as a JSON file, stored with each result."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from mpitask.errors import ConfigurationError

SHIPPED = Path(__file__).with_name("shipped.json")
ENGINE = (
    "step",
    "lane",
    "frame_in",
    "frame_out",
    "byte_in",
    "byte_out",
    "submit",
    "edge",
    "assign",
    "end",
    "take",
    "forward",
    "result",
    "cut",
    "collect",
    "byte_join",
    "nap",
    "wake",
)
"""Names of mt_sim_costs; csrc/sim.h says what each is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Costs, and where they come from.

    Attributes:
        machine: where it was measured.
        engine_ns: nanoseconds of the engine thread, by the names of ENGINE.
        submit_call_us: what a script needs to submit a task from Python.
        submit_span_us: the same for a span of `map`.
        worker_overhead_us: what a worker process needs for each task beyond the task itself.
        nap_late_us: by which a nap is longer than it was meant to be.
        bell_us: until a sleeping engine thread runs after its bell.
        notes: for people.
    """

    machine: str
    engine_ns: dict[str, float]
    submit_call_us: float
    submit_span_us: float
    worker_overhead_us: float
    nap_late_us: float
    bell_us: float
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def costs_ps(self) -> dict[str, int]:
        """As mt_sim_costs wants them."""
        return {name: round(self.engine_ns[name] * 1000) for name in ENGINE}

    def as_dict(self) -> dict[str, Any]:
        """As it stands in files and results."""
        return dataclasses.asdict(self)


def user_file() -> Path:
    """Where `calibrate` writes and the simulator looks first."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "mpitask" / "calibration.json"


def read(path: Path) -> Calibration:
    """Reads a calibration file.

    Raises:
        ConfigurationError: there is none, or it is not one.
    """
    try:
        data = json.loads(path.read_text())
        calibration = Calibration(**data)
        missing = [name for name in ENGINE if float(calibration.engine_ns[name]) < 0]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"{path} is no calibration ({error!r}); `python -m mpitask.sim calibrate` writes one"
        ) from error
    if missing:
        raise ConfigurationError(f"{path}: negative costs of {', '.join(missing)}")
    return calibration


def shipped() -> Calibration:
    """The calibration that comes with the package."""
    return read(SHIPPED)


def write(calibration: Calibration, path: Path) -> None:
    """Writes a calibration file, and its folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(calibration.as_dict(), indent=2) + "\n")
