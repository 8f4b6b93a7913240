"""`parsl.usage_tracking`: accepted in configurations; mpitask reports to nobody."""

from mpitask.compat.aliases import lazy_submodules

__getattr__ = lazy_submodules(__name__)
