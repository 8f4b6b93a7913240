# ruff: noqa: PLW0108
import time

import parsl
from parsl import python_app
from parsl.config import Config
from parsl.dataflow.dflow import DataFlowKernelLoader
from parsl.errors import NoDataFlowKernelError
from parsl.executors import ThreadPoolExecutor


def config(mode):
    return Config(executors=[ThreadPoolExecutor()], exit_mode=mode)


@python_app
def nap(seconds):
    time.sleep(seconds)
    return "slept"


with parsl.load(config("wait")) as dfk:
    first = nap(0.2)
    second = nap(first and 0.1)
print(first.done(), second.done(), dfk.cleanup_called, DataFlowKernelLoader._dfk)

with parsl.load(config("cleanup")):
    running = nap(0.3)
    time.sleep(0.1)
print(running.result())

with parsl.load(config("skip")) as dfk:
    pass
print(parsl.dfk() is dfk, nap(0).result())
dfk.cleanup()

try:
    with parsl.load(config("wait")) as dfk:
        raise KeyError("in the block")
except KeyError:
    print(dfk.cleanup_called)

for attempt in (lambda: nap(0), lambda: parsl.dfk(), lambda: dfk.submit(nap, (0,), "all", False, None, {})):
    try:
        attempt()
    except NoDataFlowKernelError as error:
        print(error)
try:
    dfk.cleanup()
except Exception as error:
    print(type(error).__name__, error)

# prints:
# True True True None
# slept
# True slept
# True
# Must first load config
# Must first load config
# Cannot submit to a DFK that has been cleaned up
# Exception attempt to clean up DFK when it has already been cleaned-up
