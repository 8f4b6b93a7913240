import threading

import parsl
from parsl import Config, python_app
from parsl.dataflow.states import FINAL_STATES, States
from parsl.executors import ThreadPoolExecutor

gate = threading.Event()


@python_app
def wait_for_gate():
    gate.wait(20)


@python_app
def fail(_=None):
    raise RuntimeError


dfk = parsl.load(Config(executors=[ThreadPoolExecutor(max_threads=1)], garbage_collect=False))
waiting = wait_for_gate()
behind = wait_for_gate()
dependent = fail(waiting)
while waiting.task_status() != "launched":
    pass
print(dfk.task_count, sorted(dfk.tasks) == [waiting.tid, behind.tid, dependent.tid])
print(dependent.task_status(), dfk.tasks[waiting.tid]["status"] == States.launched, waiting.done())
record = dfk.tasks[waiting.tid]
print(record["func_name"], record["executor"], record["status"].name, record["dfk"] is dfk, record["depends"])
gate.set()
parsl.wait_for_current_tasks()
print(waiting.done(), behind.done(), dependent.done())
print(
    dfk.task_state_counts[States.exec_done], dfk.task_state_counts[States.failed], dfk.task_state_counts[States.pending]
)
print([dfk.tasks[tid]["status"] in FINAL_STATES for tid in dfk.tasks], dfk.task_count)
print(dfk.tasks[dependent.tid]["time_returned"] >= dfk.tasks[dependent.tid]["time_invoked"])
dfk.cleanup()

with parsl.load() as dfk:
    wait_for_gate().result()
    dfk.wait_for_current_tasks()
    print(dfk.tasks, dfk.task_count)

# prints:
# 3 True
# pending True False
# wait_for_gate threads launched True []
# True True True
# 2 1 0
# [True, True, True] 3
# True
# {} 1
