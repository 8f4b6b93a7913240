import os

import parsl
from parsl import Config, DataFlowKernel, HighThroughputExecutor, ThreadPoolExecutor, python_app
from parsl.errors import ConfigurationError

threads = DataFlowKernel(Config(executors=[ThreadPoolExecutor(label="a")]))
workers = DataFlowKernel(Config(executors=[HighThroughputExecutor(label="b", max_workers_per_node=1)], retries=1))


@python_app(data_flow_kernel=threads)
def here():
    return os.getpid()


@python_app(data_flow_kernel=workers)
def there():
    import os

    return os.getpid()


@python_app
def default():
    return os.getpid()


@python_app(data_flow_kernel=workers)
def combine(x, y):
    return x, y


print(here().result() == os.getpid(), there().result() == os.getpid())
loaded = parsl.load()
print(default().result() == os.getpid(), combine(here(), default()).result() == (os.getpid(), os.getpid()))
print(threads.run_dir != workers.run_dir, len({threads.run_id, workers.run_id, loaded.run_id}))
try:
    parsl.load()
except ConfigurationError as error:
    print(error)
threads.cleanup()
print(there().result() != os.getpid(), parsl.dfk() is loaded)
parsl.clear()
again = parsl.load(Config(executors=[HighThroughputExecutor(max_workers_per_node=1)]))
print(default().result() != os.getpid())
for dfk in (workers, loaded, again):
    dfk.cleanup()

# prints:
# True False
# True True
# True 3
# Config has already been loaded
# True True
# True
