"""`parsl.monitoring.radios.udp`."""

from __future__ import annotations

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.monitoring.radios.base import RadioConfig
from mpitask.compat.parsl.utils import RepresentationMixin


class UDPRadio(RepresentationMixin, RadioConfig):
    """Accepted in configurations."""

    def __init__(
        self,
        *,
        port: int | None = None,
        atexit_timeout: int = 3,
        address: str,
        debug: bool = False,
        hmac_digest: str = "sha512",
    ) -> None:
        keep(self, locals())
