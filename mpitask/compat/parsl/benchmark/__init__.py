"""`parsl.benchmark`."""

from mpitask.compat.aliases import lazy_submodules

__getattr__ = lazy_submodules(__name__)
