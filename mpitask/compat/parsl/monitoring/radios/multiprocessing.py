"""`parsl.monitoring.radios.multiprocessing`."""

from mpitask.compat.parsl.monitoring.radios.base import RadioConfig
from mpitask.compat.parsl.utils import RepresentationMixin


class MultiprocessingQueueRadio(RepresentationMixin, RadioConfig):
    """Accepted in configurations."""
