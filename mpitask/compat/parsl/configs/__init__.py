"""`parsl.configs`: ready configurations; a site's own may lie in a folder `parsl/configs` on sys.path."""

from mpitask.compat.aliases import lazy_submodules

__getattr__ = lazy_submodules(__name__)
