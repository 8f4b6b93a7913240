# ruff: noqa: PTH123
from pathlib import Path

import parsl
from parsl import File, bash_app, python_app
from parsl.app.futures import DataFuture
from parsl.configs.htex_local import config


@bash_app
def generate(number, outputs=()):
    return f"echo {number} > {outputs[0]}"


@bash_app
def concat(inputs=(), outputs=()):
    return "cat {} > {} 2> cat.err".format(" ".join(str(name) for name in inputs), outputs[0])


@python_app
def total(inputs=()):
    with open(inputs[0]) as file:
        return sum(int(line) for line in file)


if __name__ == "__main__":
    with parsl.load(config):
        parts = [generate(i, outputs=[File(f"part{i}.txt")]) for i in range(5)]
        print(all(isinstance(part.outputs[0], DataFuture) for part in parts))
        all_of_them = concat(
            inputs=[part.outputs[0] for part in parts], outputs=[File(str(Path("all.txt").absolute()))]
        )
        joined = all_of_them.outputs[0]
        print(total(inputs=[joined]).result())
        print(joined.result().filename, Path(joined.filepath).is_absolute(), joined.tid == all_of_them.tid)
        failed = concat(inputs=[File("nowhere.txt")], outputs=[File("x.txt")])
        print(type(failed.outputs[0].exception()).__name__)

# prints:
# True
# 10
# all.txt True True
# BashExitFailure
