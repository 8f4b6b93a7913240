"""Memoisation and checkpoints: what makes two calls the same, what is remembered of them, and where it is kept.

keys.py says what makes two calls the same (identity.py: two values), memoizer.py what is remembered, checkpoints.py
where, store.py how it survives crashes. Imports nothing of mpitask but `mpitask.errors`.
"""

from mpitask.memo.checkpoints import get_all_checkpoints, get_last_checkpoint, load_checkpoints
from mpitask.memo.keys import function_id, id_for_memo, make_key
from mpitask.memo.memoizer import BasicMemoizer, Memoizer
from mpitask.memo.store import BadCheckpoint, Store, read_store

__all__ = [
    "BadCheckpoint",
    "BasicMemoizer",
    "Memoizer",
    "Store",
    "function_id",
    "get_all_checkpoints",
    "get_last_checkpoint",
    "id_for_memo",
    "load_checkpoints",
    "make_key",
    "read_store",
]
