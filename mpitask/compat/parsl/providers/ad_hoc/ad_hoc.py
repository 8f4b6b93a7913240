"""`parsl.providers.ad_hoc.ad_hoc`, of older versions."""

from mpitask.compat.parsl._gone import REMOTE, gone

AdHocProvider = gone("AdHocProvider", REMOTE)
