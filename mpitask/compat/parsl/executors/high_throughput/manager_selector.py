"""`parsl.executors.high_throughput.manager_selector`: accepted in configurations."""

from mpitask.compat.parsl.utils import RepresentationMixin


class ManagerSelector(RepresentationMixin):
    """In which order nodes are given tasks."""


class RandomManagerSelector(ManagerSelector):
    """In any."""


class BlockIdManagerSelector(ManagerSelector):
    """By the number of their block."""
