import parsl
from parsl import python_app
from parsl.app.errors import AppException
from parsl.configs.htex_local import config
from parsl.dataflow.errors import DependencyError, PropagatedException
from parsl.errors import ParslError

parsl.load(config)


@python_app
def divide(a, b):
    return a / b


@python_app
def use(*values, inputs=()):
    return "used"


bad = divide(1, 0)
first = use(bad)
second = use(first, inputs=[divide(1, 1)])
in_list = use(inputs=[divide(1, 1), bad])
nested = use({"deep": [bad]})
for future in (first, second, in_list, nested):
    try:
        future.result()
    except DependencyError as error:
        print(
            future.task_status(), type(error.__cause__).__name__, type(error.dependent_exceptions_tids[0][0]).__name__
        )
error = first.exception()
print(error.task_id == first.tid, f"task {bad.tid}" in str(error) or error.dependent_exceptions_tids[0][1])
print(isinstance(error, PropagatedException), isinstance(error, ParslError), isinstance(error, AppException))
try:
    bad.result()
except ZeroDivisionError as error:
    print("ZeroDivisionError", "divide" in str(error.__cause__))
parsl.dfk().cleanup()

# prints:
# dep_fail ZeroDivisionError ZeroDivisionError
# dep_fail ZeroDivisionError DependencyError
# dep_fail ZeroDivisionError ZeroDivisionError
# dep_fail ZeroDivisionError ZeroDivisionError
# True True
# True True False
# ZeroDivisionError True
