"""Memoisation and checkpoints: what makes two calls the same, what is remembered of them, and where it is kept.

keys.py says what makes two calls the same (identity.py: two values, functions.py: two functions or classes),
memoizer.py what is remembered, checkpoints.py where, store.py how it survives crashes. Imports nothing of mpitask but
`mpitask.errors` and `mpitask.private`.
"""

from mpitask.memo.checkpoints import get_all_checkpoints, get_last_checkpoint, load_checkpoints
from mpitask.memo.functions import see_through
from mpitask.memo.identity import NotIdentified
from mpitask.memo.keys import Identity, id_for_memo, make_key
from mpitask.memo.memoizer import BasicMemoizer, Memoizer, tell_once
from mpitask.memo.store import BadCheckpoint, Store, read_store

__all__ = [
    "BadCheckpoint",
    "BasicMemoizer",
    "Identity",
    "Memoizer",
    "NotIdentified",
    "Store",
    "get_all_checkpoints",
    "get_last_checkpoint",
    "id_for_memo",
    "load_checkpoints",
    "make_key",
    "read_store",
    "see_through",
    "tell_once",
]
