"""`parsl.monitoring.errors`."""

from mpitask.errors import MpitaskError


class MonitoringRouterStartError(MpitaskError):
    """Monitoring cannot be started."""


class RadioRequiredError(MpitaskError):
    """An executor lacks a radio."""
