# ruff: noqa: PTH123
import parsl
from parsl.app.app import bash_app, python_app
from parsl.configs.local_threads import config

parsl.load(config)


@python_app
def hello():
    return "Hello World from Python!"


@bash_app
def echo(inputs=(), stderr=parsl.AUTO_LOGNAME, stdout=parsl.AUTO_LOGNAME):
    return "echo 'Hello World from Bash!'"


print(hello().result())
future = echo()
print(future.result())
with open(future.stdout) as f:
    print(f.read().strip())

# prints:
# Hello World from Python!
# 0
# Hello World from Bash!
