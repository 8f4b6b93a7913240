"""A simulator: whole jobs of real engines in virtual time, on modelled machines. See docs/simulator.md."""

from __future__ import annotations

from mpitask.sim.costs import Calibration, shipped
from mpitask.sim.model import Job, durations, run

__all__ = ["Calibration", "Job", "durations", "run", "shipped"]
