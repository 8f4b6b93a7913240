# ruff: noqa: PTH108, PTH123, SIM115
import os
import threading

import parsl
from parsl import bash_app, python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor, WorkQueueExecutor

here = os.getpid()
state = {"touched": 0, "running": 0, "most": 0, "lock": threading.Lock()}


@python_app(executors=["threads"])
def in_thread(value):
    state["touched"] += 1
    return value, threading.current_thread().name.startswith("threads"), state


@python_app(executors=["htex", "wq"])
def in_worker():
    import os

    return os.getpid()


@python_app
def anywhere():
    import os

    return os.getpid()


@bash_app(executors=["threads"])
def bash_in_thread(stdout="t.out"):
    return "echo from a thread"


@python_app(executors=["serial"])
def alone(name):
    import os
    import time

    handle = os.open(name, os.O_CREAT | os.O_EXCL)  # fails when another one runs
    time.sleep(0.02)
    os.close(handle)
    os.unlink(name)
    return True


@python_app(executors=["missing"])
def nowhere(x):
    return x


config = Config(
    executors=[
        ThreadPoolExecutor(label="threads", max_threads=3),
        HighThroughputExecutor(label="htex", max_workers_per_node=2),
        WorkQueueExecutor(label="wq"),
        HighThroughputExecutor(label="serial", max_workers_per_node=1),
    ]
)
with parsl.load(config) as dfk:
    print(sorted(dfk.executors))
    value, named, same = in_thread(threading.Lock()).result()  # nothing is pickled for threads
    print(named, same is state, state["touched"], type(value).__name__)
    print(in_worker().result() != here)
    print(len({anywhere().result() == here for _ in range(60)}))
    print(bash_in_thread().result(), open("t.out").read().strip())
    print(all(future.result() for future in [alone("token") for _ in range(6)]))
    invalid = nowhere(1)
    error = invalid.exception()
    print(type(error).__name__, str(error) == f"Task {invalid.tid} requested invalid executor missing")
    htex = dfk.executors["htex"]
    print(htex.submit(pow, {}, 2, 5).result(), htex.outstanding() >= 0, len(htex.connected_managers()))
    dfk.add_executors([ThreadPoolExecutor(label="more")])
    print(python_app(os.getpid, executors=["more"])().result() == here)

# prints:
# ['_parsl_internal', 'htex', 'serial', 'threads', 'wq']
# True True 1 lock
# True
# 2
# 0 from a thread
# True
# ValueError True
# 32 True 1
# True
