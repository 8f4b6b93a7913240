# ruff: noqa: PTH110, PTH123, SIM115, PTH100, B008
import os

import parsl
from parsl import bash_app, python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, MPIExecutor, ThreadPoolExecutor
from parsl.executors.errors import InvalidResourceSpecification
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider


@bash_app(executors=["mpi"])
def simulate(parsl_resource_specification=None, stdout=os.path.abspath("sim.out")):
    return "echo $PARSL_MPI_PREFIX ./program; echo $PARSL_NUM_RANKS $PARSL_RANKS_PER_NODE"


@python_app(executors=["htex"])
def ordered(name, parsl_resource_specification=None):
    with open("order.txt", "a") as file:
        file.write(name)


@python_app(executors=["htex"])
def block():
    import os
    import time

    while not os.path.exists("go"):
        time.sleep(0.01)


@python_app(executors=["threads"])
def threaded(parsl_resource_specification=None):
    return 1


config = Config(
    executors=[
        MPIExecutor(
            label="mpi",
            max_workers_per_block=2,
            mpi_launcher="mpiexec",
            provider=LocalProvider(launcher=SimpleLauncher()),
        ),
        HighThroughputExecutor(label="htex", max_workers_per_node=1),
        ThreadPoolExecutor(),
    ]
)
with parsl.load(config):
    print(simulate(parsl_resource_specification={"num_nodes": 1, "ranks_per_node": 4}).result())
    print(open("sim.out").read().strip())
    for app, spec in (
        (simulate, {}),
        (simulate, {"nodes": 2}),
        (ordered, {"cores": 2}),
        (threaded, {"cores": 1}),
    ):
        args = ("x",) if app is ordered else ()
        error = app(*args, parsl_resource_specification=spec).exception()
        print(type(error) is InvalidResourceSpecification, sorted(error.invalid_keys))
    print(ordered("p", parsl_resource_specification={"priority": 3}).result(), threaded().result())

# prints:
# 0
# mpiexec -n 4 -ppn 4 ./program
# 4 4
# True []
# True ['nodes']
# True ['cores']
# True ['cores']
# None 1
