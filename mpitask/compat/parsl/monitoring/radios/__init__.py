"""`parsl.monitoring.radios`: accepted in configurations; nothing is sent."""

from mpitask.compat.aliases import lazy_submodules

__getattr__ = lazy_submodules(__name__)
