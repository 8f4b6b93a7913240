"""Two tasks, one after the other: prints 'hello, world!'."""

from mpitask import python_app


@python_app
def greet(name):
    return f"hello, {name}"


@python_app
def shout(text):
    return text + "!"


print(shout(greet("world")).result())
