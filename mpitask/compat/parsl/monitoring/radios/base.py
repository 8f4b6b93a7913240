"""`parsl.monitoring.radios.base`."""


class RadioConfig:
    """How messages of monitoring would travel."""


class MonitoringRadioSender:
    """What sends such messages."""

    def send(self, message: object) -> None:
        """Nothing."""


class MonitoringRadioReceiver:
    """What receives such messages."""

    def shutdown(self) -> None:
        """Nothing."""
