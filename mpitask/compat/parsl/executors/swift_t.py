"""`parsl.executors.swift_t`, of older versions."""

from mpitask.compat.parsl._gone import HTEX, gone

TurbineExecutor = gone("TurbineExecutor", HTEX)
