# ruff: noqa: PTH119
import os

import parsl
from parsl import python_app
from parsl.config import Config
from parsl.dataflow.errors import BadCheckpoint
from parsl.dataflow.memoization import BasicMemoizer
from parsl.executors import HighThroughputExecutor
from parsl.utils import get_all_checkpoints, get_last_checkpoint


def config(**memo):
    return Config(
        executors=[HighThroughputExecutor(label="htex", max_workers_per_node=1)], memoizer=BasicMemoizer(**memo)
    )


@python_app(cache=True)
def stamp(x):
    import uuid

    return x, str(uuid.uuid4())


with parsl.load(config(checkpoint_mode="task_exit")):
    first = [stamp(i).result() for i in range(3)]
print(len(get_all_checkpoints()), [os.path.basename(path) for path in get_last_checkpoint()])

with parsl.load(config(checkpoint_files=get_all_checkpoints())):
    print([stamp(i).result() for i in range(3)] == first)
    print(stamp(3).result()[0])

with parsl.load(config(checkpoint_mode="manual")) as dfk:  # takes all checkpoints of earlier runs
    print(stamp(0).result() == first[0])
    extra = stamp(4).result()
    dfk.checkpoint()
with parsl.load(config(checkpoint_files=get_last_checkpoint())):
    print(stamp(4).result() == extra)

try:
    parsl.load(config(checkpoint_files=["nowhere"]))
except BadCheckpoint:
    print("BadCheckpoint")
parsl.load().cleanup()

# prints:
# 1 ['checkpoint']
# True
# 3
# True
# True
# BadCheckpoint
