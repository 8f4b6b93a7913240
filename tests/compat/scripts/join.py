import parsl
from parsl import join_app, python_app
from parsl.dataflow.errors import DependencyError, JoinError

parsl.load()


@python_app
def add(*args):
    return sum(args)


@python_app
def fail(text):
    raise ValueError(text)


@join_app
def fibonacci(n):
    if n <= 1:
        return add(n)
    return add(fibonacci(n - 1), fibonacci(n - 2))


@join_app
def several(n):
    return [add(i, i) for i in range(n)]


@join_app
def broken():
    return [add(1), fail("one"), fail("two")]


@join_app
def wrong():
    return 5


@join_app
def raises():
    raise KeyError("body")


print(fibonacci(8).result())
print(several(4).result(), several(0).result())
print(add(several(3)[1], 1).result())
error = broken().exception()
print(type(error) is JoinError, [str(cause) for cause, name in error.dependent_exceptions_tids])
print(type(wrong().exception()).__name__, type(raises().exception()).__name__)
print(isinstance(add(broken()).exception(), DependencyError))
parsl.dfk().cleanup()

# prints:
# 21
# [0, 2, 4, 6] []
# 3
# True ['one', 'two']
# TypeError KeyError
# True
