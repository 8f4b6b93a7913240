"""A shell command as a task: its output goes to a file, which the next task reads. Prints 'Hello World!'."""

from mpitask import AUTO_LOGNAME, bash_app, python_app


@bash_app
def echo(words, stdout=AUTO_LOGNAME):
    return f"echo '{words}'"


@python_app
def read(path, done):
    with open(path) as file:
        return file.read().strip()


hello = echo("Hello World!")
print(read(hello.stdout, hello).result())  # `hello` itself makes the second task wait for the first
