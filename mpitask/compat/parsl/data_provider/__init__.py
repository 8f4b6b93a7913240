"""`parsl.data_provider`: files, and how they are brought where they are needed."""

from mpitask.compat.aliases import lazy_submodules

__getattr__ = lazy_submodules(__name__)
