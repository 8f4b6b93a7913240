"""A worker process for each core, under Work Queue's label."""

from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.executors import WorkQueueExecutor

config = Config(executors=[WorkQueueExecutor(label="parsl-wq-example")])
