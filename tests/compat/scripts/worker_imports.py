import parsl
from parsl import bash_app, python_app
from parsl.configs.htex_local import config


@python_app
def look():
    import os

    import parsl
    from parsl.app.errors import BashExitFailure
    from parsl.data_provider.files import File
    from parsl.errors import NoDataFlowKernelError

    names = sorted(name for name in os.environ if name.startswith("PARSL_WORKER"))
    try:
        parsl.dfk()
    except NoDataFlowKernelError:
        return parsl.__version__, names, BashExitFailure("a", 1), File("x")


@python_app
def helper(x):
    return x + 1


@python_app
def uses_plain(x):
    return helper.__wrapped__(x)


@bash_app
def fails():
    return "exit 4"


if __name__ == "__main__":
    parsl.load(config)
    version, names, error, file = look().result()
    print(version == parsl.__version__, names)
    print(type(error) is parsl.app.errors.BashExitFailure, type(file) is parsl.File)
    print(uses_plain(1).result())
    try:
        fails().result()
    except parsl.app.errors.BashExitFailure as caught:
        print(caught.exitcode)
    parsl.dfk().cleanup()

# prints:
# True ['PARSL_WORKER_BLOCK_ID', 'PARSL_WORKER_COUNT', 'PARSL_WORKER_POOL_ID', 'PARSL_WORKER_RANK']
# True True
# 2
# 4
