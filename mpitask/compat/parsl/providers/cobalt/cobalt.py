"""`parsl.providers.cobalt.cobalt`, of older versions."""

from mpitask.compat.parsl._gone import REMOTE, gone

CobaltProvider = gone("CobaltProvider", REMOTE)
