"""`parsl.usage_tracking.levels`: accepted, and without effect."""

DISABLED = 0
LEVEL_1 = 1
LEVEL_2 = 2
LEVEL_3 = 3
