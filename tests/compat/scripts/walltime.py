import time

import parsl
from parsl import bash_app, python_app
from parsl.app.errors import AppTimeout
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor


@python_app(executors=["htex"])
def spin(seconds, walltime=0.3):
    import time

    end = time.time() + seconds
    while time.time() < end:
        time.sleep(0.01)
    return "in time"


@python_app(executors=["threads"])
def spin_in_thread(seconds, walltime=0.3):
    end = time.time() + seconds
    while time.time() < end:
        time.sleep(0.01)
    return "in time"


@bash_app(executors=["htex"])
def sleep(seconds, walltime=0.3):
    return f"sleep {seconds}"


@python_app(executors=["htex"])
def without(x):
    return x


with parsl.load(Config(executors=[HighThroughputExecutor(label="htex", max_workers_per_node=2), ThreadPoolExecutor()])):
    print(spin(0).result(), spin_in_thread(0).result(), sleep(0).result())
    began = time.monotonic()
    late = [spin(600), spin_in_thread(600), sleep(600), spin(600, walltime=0.2)]
    for future in late:
        error = future.exception()
        print(type(error) is AppTimeout, "exceeded walltime: 0." in str(error))
    print(time.monotonic() - began < 60)
    print(type(without(1, walltime=1).exception()).__name__)

# prints:
# in time in time 0
# True True
# True True
# True True
# True True
# True
# TypeError
