"""A worker process for each core."""

from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.executors import HighThroughputExecutor

config = Config(executors=[HighThroughputExecutor(label="htex_local")])
