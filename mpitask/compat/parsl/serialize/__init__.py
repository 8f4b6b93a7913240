"""`parsl.serialize`: objects as bytes."""

from mpitask.compat.aliases import lazy_submodules
from mpitask.compat.parsl.serialize.facade import deserialize, pack_apply_message, serialize, unpack_apply_message

__all__ = ["deserialize", "pack_apply_message", "serialize", "unpack_apply_message"]

__getattr__ = lazy_submodules(__name__)
