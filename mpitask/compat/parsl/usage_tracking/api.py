"""`parsl.usage_tracking.api`: for classes that tell of themselves; nobody asks them."""

from __future__ import annotations

from typing import Any


class UsageInformation:
    """What a component would report."""

    def get_usage_information(self) -> dict[str, Any]:
        """Nothing."""
        return {}
