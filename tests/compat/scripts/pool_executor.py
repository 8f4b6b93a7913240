from concurrent.futures import as_completed

import parsl
from parsl.concurrent import ParslPoolExecutor
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor


def double(x, extra=0):
    return 2 * x + extra


def config():
    return Config(executors=[HighThroughputExecutor(label="pool", max_workers_per_node=2)])


with ParslPoolExecutor(config()) as pool:
    print(pool.submit(double, 4, extra=1).result(), list(pool.map(double, range(5))))
    print(list(pool.map(double, [1, 2], [3, 4], timeout=60)), pool.app_count)
    print(sorted(future.result() for future in as_completed([pool.submit(double, i) for i in range(3)])))
    print(pool.submit(double, pool.submit(double, 5)).result())
try:
    pool.submit(double, 1)
except RuntimeError as error:
    print(error)

with parsl.load(Config(executors=[ThreadPoolExecutor(label="x"), ThreadPoolExecutor(label="y")])) as dfk:
    with ParslPoolExecutor(dfk=dfk, executors=["y"]) as pool:
        future = pool.submit(double, 7)
        print(future.result(), future.task_record["executor"])
    print(dfk.cleanup_called)
for wrong in ({}, {"config": Config(), "dfk": 1}):
    try:
        ParslPoolExecutor(**wrong)
    except ValueError as error:
        print(error)

# prints:
# 9 [0, 2, 4, 6, 8]
# [5, 8] 1
# [0, 2, 4]
# 20
# Executor has been shut down.
# 14 y
# False
# Must specify one of config or dfk
# Specify only one of config or dfk
