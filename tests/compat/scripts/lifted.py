# ruff: noqa: B018
from collections import namedtuple
from functools import partial

import parsl
from parsl import python_app
from parsl.configs.local_threads import config

parsl.load(config)
Point = namedtuple("Point", "x y")


@python_app
def make():
    return {"a": [10, 20, 30], "p": Point(1, 2)}


@python_app
def add(a, b):
    return a + b


class Adder:
    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        return self.n + x

    @python_app
    def method(self, x):
        return self.n * x


made = make()
print(made["a"][1].result(), made["p"].y.result(), add(made["a"][0], made["p"].x).result())
print(type(made["zz"].exception()).__name__, type(made["p"].zz.exception()).__name__)
try:
    made._private
except AttributeError:
    print("AttributeError")
print(python_app(Adder(3))(4).result(), Adder(5).method(4).result(), python_app(partial(pow, 2))(5).result())
print(python_app(max)(1, 7).result(), python_app(lambda x: x * 2)(4).result())
print(add(None, None).exception().__class__.__name__, make().task_status() in ("pending", "launched", "exec_done"))
parsl.dfk().cleanup()

# prints:
# 20 2 11
# KeyError AttributeError
# AttributeError
# 7 20 32
# 7 8
# TypeError True
