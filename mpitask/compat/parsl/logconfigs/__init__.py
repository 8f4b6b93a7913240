"""`parsl.logconfigs`: how messages of a run are kept."""

from mpitask.compat.aliases import lazy_submodules

__getattr__ = lazy_submodules(__name__)
