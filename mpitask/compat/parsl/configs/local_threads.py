"""Two threads."""

from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.executors import ThreadPoolExecutor

config = Config(executors=[ThreadPoolExecutor()])
