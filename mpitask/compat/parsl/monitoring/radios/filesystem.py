"""`parsl.monitoring.radios.filesystem`."""

from mpitask.compat.parsl.monitoring.radios.base import RadioConfig
from mpitask.compat.parsl.utils import RepresentationMixin


class FilesystemRadio(RepresentationMixin, RadioConfig):
    """Accepted in configurations."""
