"""`parsl.providers.cluster_provider`."""

from mpitask.compat.parsl.providers.base import ExecutionProvider
from mpitask.compat.parsl.utils import RepresentationMixin


class ClusterProvider(RepresentationMixin, ExecutionProvider):
    """The root of providers for batch systems."""
