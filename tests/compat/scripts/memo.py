from pathlib import Path

import parsl
from parsl import python_app
from parsl.config import Config
from parsl.dataflow.memoization import BasicMemoizer, id_for_memo
from parsl.executors import ThreadPoolExecutor

calls = []


class Mesh:
    def __init__(self, name, data):
        self.name = name
        self.data = data


@id_for_memo.register(Mesh)
def mesh_id(mesh, output_ref=False):
    return mesh.name.encode()


@python_app(cache=True)
def slow(x, y=0):
    calls.append((x, y))
    return x + y


@python_app(cache=True, ignore_for_cache=["verbose"])
def quiet(x, verbose=False):
    calls.append(x)
    return x


@python_app(cache=True)
def of_mesh(mesh):
    calls.append(mesh.name)
    return mesh.name


@python_app(cache=True)
def fails(x):
    calls.append(x)
    raise RuntimeError(len(calls))


with parsl.load(Config(executors=[ThreadPoolExecutor()], memoizer=BasicMemoizer())):
    print(slow(1).result(), slow(1).result(), slow(1, y=0).result(), slow(2).result(), len(calls))
    again = slow(1)
    print(again.result(), again.task_status())
    calls.clear()
    print(quiet(1, verbose=True).result(), quiet(1, verbose=False).result(), len(calls))
    calls.clear()
    print(of_mesh(Mesh("a", object())).result(), of_mesh(Mesh("a", object())).result(), len(calls))
    calls.clear()
    print(str(fails(1).exception()), str(fails(1).exception()), len(calls))

calls.clear()
with parsl.load(Config(memoizer=BasicMemoizer(memoize=False))):
    slow(1).result()
    slow(1).result()
    print(len(calls), Path("runinfo/001").is_dir())

# prints:
# 1 1 1 2 2
# 1 memo_done
# 1 1 1
# a a 1
# 1 1 1
# 2 True
