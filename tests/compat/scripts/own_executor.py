from concurrent.futures import Future

import parsl
from parsl import bash_app, join_app, python_app
from parsl.app.errors import BashExitFailure
from parsl.config import Config
from parsl.executors.base import ParslExecutor
from parsl.serialize import deserialize, pack_apply_message, serialize, unpack_apply_message
from parsl.utils import RepresentationMixin


class ImmediateExecutor(ParslExecutor, RepresentationMixin):
    """Runs each task when it is submitted, from bytes and back, as an executor elsewhere would."""

    def __init__(self, label="immediate"):
        super().__init__()
        self.label = label
        self.seen = []

    def start(self):
        self.seen.append(("start", bool(self.run_id), bool(self.run_dir)))

    def submit(self, func, resource_specification, *args, **kwargs):
        if "refuse" in resource_specification:
            raise ValueError("refused")
        future = Future()
        func, args, kwargs = unpack_apply_message(pack_apply_message(func, args, kwargs))
        future.set_result(deserialize(serialize(func(*args, **kwargs))))
        return future

    def shutdown(self):
        super().shutdown()
        self.seen.append("shutdown")


@python_app
def divide(a, b, parsl_resource_specification=None):
    return a / b


@bash_app
def run(command):
    return command


@join_app
def both():
    return [divide(4, 2), divide(9, 3)]


executor = ImmediateExecutor()
with parsl.load(Config(executors=[executor])):
    print(divide(divide(8, 2), 2).result(), both().result(), run("true").result())
    print(type(divide(1, 0).exception()).__name__, type(run("exit 3").exception()) is BashExitFailure)
    print(divide(1, 1, parsl_resource_specification={"refuse": 1}).exception())
print(executor.seen, repr(executor))

# prints:
# 2.0 [2.0, 3.0] 0
# ZeroDivisionError True
# refused
# [('start', True, True), 'shutdown'] ImmediateExecutor(label='immediate')
