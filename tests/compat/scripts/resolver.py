import concurrent.futures

import parsl
from parsl import python_app
from parsl.config import Config
from parsl.dataflow.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER, DependencyResolver
from parsl.dataflow.errors import DependencyError
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor


class Box:
    def __init__(self, content):
        self.content = content


def gather(value):
    if isinstance(value, Box) and isinstance(value.content, concurrent.futures.Future):
        return [value.content]
    return DEEP_DEPENDENCY_RESOLVER.traverse_to_gather(value)


def unwrap(value):
    if isinstance(value, Box):
        return Box(DEEP_DEPENDENCY_RESOLVER.traverse_to_unwrap(value.content))
    return DEEP_DEPENDENCY_RESOLVER.traverse_to_unwrap(value)


@python_app
def number(x):
    return x


@python_app
def fail():
    raise ValueError


@python_app
def open_box(box, key=None, inputs=()):
    return box.content + (key.content if key else 0) + sum(item.content for item in inputs)


@python_app
def deep(value):
    return value


for executor in (ThreadPoolExecutor(), HighThroughputExecutor(max_workers_per_node=1)):
    with parsl.load(Config(executors=[executor], dependency_resolver=DependencyResolver(gather, unwrap))):
        print(open_box(Box(number(5)), key=Box(number(6)), inputs=[Box(number(7))]).result())
        print(isinstance(open_box(Box(fail())).exception(), DependencyError))
with parsl.load(Config(dependency_resolver=DEEP_DEPENDENCY_RESOLVER)):
    plain = concurrent.futures.Future()
    future = deep({"a": [number(1), (number(2), {number(3)})], number(4): plain})
    plain.set_result("foreign")
    print(future.result())

# prints:
# 18
# True
# 18
# True
# {'a': [1, (2, {3})], 4: 'foreign'}
