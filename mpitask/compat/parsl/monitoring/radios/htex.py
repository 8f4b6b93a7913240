"""`parsl.monitoring.radios.htex`."""

from mpitask.compat.parsl.monitoring.radios.base import RadioConfig
from mpitask.compat.parsl.utils import RepresentationMixin


class HTEXRadio(RepresentationMixin, RadioConfig):
    """Accepted in configurations."""
