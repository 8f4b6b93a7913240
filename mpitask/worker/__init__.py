"""What runs below a rank: the zygote that forks workers, and the loop that runs tasks."""

AUTHKEY_VARIABLE = "MPITASK_AUTHKEY"
"""Environment of a zygote: the key by which multiprocessing's managers know their own processes, in hexadecimal."""
