import os

import parsl
from parsl import bash_app, python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor


@python_app(executors=["htex"])
def flaky(name, good):
    from pathlib import Path

    path = Path(name)
    tries = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(tries))
    if tries < good:
        raise OSError(f"try {tries}")
    return tries


@bash_app(executors=["htex"])
def flaky_bash(name):
    return f"echo x >> {name}; test $(wc -l < {name}) -ge 3"


@python_app(executors=["htex"])
def where(script):
    import os

    if os.getpid() != script:
        raise RuntimeError("not in the script's process")
    return "moved"


def handler(exception, task_record):
    if "not in the script's process" in str(exception):
        task_record["executor"] = "threads"
        return 0
    if isinstance(exception, OSError):
        return 0.5
    return 100


executors = [HighThroughputExecutor(label="htex", max_workers_per_node=1), ThreadPoolExecutor()]
with parsl.load(Config(executors=executors, retries=2)):
    print(flaky("a", 3).result(), flaky_bash("b").result())
    failed = flaky("c", 9)
    print(failed.exception(), failed.task_record["fail_count"], failed.task_status())

with parsl.load(
    Config(
        executors=[HighThroughputExecutor(label="htex", max_workers_per_node=1), ThreadPoolExecutor()],
        retries=2,
        retry_handler=handler,
    )
):
    print(flaky("d", 5).result())
    print(where(os.getpid()).result())

# prints:
# 3 0
# try 3 3 failed
# 5
# moved
