"""A worker process for each core, under TaskVine's label."""

from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.executors import TaskVineExecutor

config = Config(executors=[TaskVineExecutor(label="parsl-vine-example")])
