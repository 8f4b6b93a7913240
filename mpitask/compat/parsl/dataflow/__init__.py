"""`parsl.dataflow`: the kernel, states, futures, memoisation."""

from mpitask.compat.aliases import lazy_submodules

__getattr__ = lazy_submodules(__name__)
