# ruff: noqa: F523, F524, PTH117, PTH119
import os
from pathlib import Path

import parsl
from parsl import bash_app
from parsl.app.errors import AppBadFormatting, BashAppNoReturn, BashExitFailure, MissingOutputs
from parsl.config import Config
from parsl.data_provider.files import File
from parsl.executors import HighThroughputExecutor

parsl.load(Config(executors=[HighThroughputExecutor(label="htex", max_workers_per_node=2, cores_per_worker=0.5)]))


@bash_app
def run(command, stdout=None, stderr=None, outputs=()):
    return command


@bash_app
def wrong_format(stdout=None):
    return "echo {1}".format(1)


@bash_app
def nothing():
    return None.command


def text(path):
    return Path(path).read_text().strip()


one = run("echo one; echo problem >&2", stdout="logs/deep/one.out", stderr=("one.err", "w"))
print(one.result(), one.stdout, text(one.stdout), text(one.stderr[0]).splitlines()[-1])
run("echo two", stdout=Path("logs/deep/one.out")).result()
print(text("logs/deep/one.out").split())
run("echo three", stdout=("logs/deep/one.out", "w")).result()
print(text("logs/deep/one.out").split())
print("executable follows" in text("one.err"))

auto = run("echo auto", stdout=parsl.AUTO_LOGNAME, stderr=parsl.AUTO_LOGNAME)
auto.result()
print(os.path.basename(auto.stdout).endswith("_run.stdout"), os.path.isabs(auto.stdout), text(auto.stdout))

for command in ("exit 7", "kill -9 $$", "no_such_command 2>/dev/null"):
    try:
        run(command).result()
    except BashExitFailure as error:
        print(error.app_name, error.exitcode)
for app, kind in ((wrong_format, AppBadFormatting), (nothing, BashAppNoReturn)):
    print(type(app().exception()) is kind)
missing = run("true", outputs=[File("never.txt")]).exception()
print(type(missing) is MissingOutputs, [str(file) for file in missing.outputs])
print(type(run(5).exception()).__name__)
parsl.dfk().cleanup()

# prints:
# 0 logs/deep/one.out one problem
# ['one', 'two']
# ['three']
# True
# True True auto
# run 7
# run -9
# run 127
# True
# True
# True ['never.txt']
# ValueError
