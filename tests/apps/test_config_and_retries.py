"""Options, retries and their handler, hooks, and the directories of runs."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps_helpers import hold, soon

import mpitask
from helpers.processes import Launcher
from mpitask import (
    AUTO_LOGNAME,
    AppTimeout,
    BashExitFailure,
    Config,
    ConfigurationError,
    DependencyError,
    Engine,
    JoinError,
    WorkerLost,
    bash_app,
    join_app,
    python_app,
)
from mpitask.apps import base
from mpitask.dataflow import kernel_of
from mpitask.dataflow.kernel import make_run_dir

MakeEngine = Callable[..., Engine]


def tries(path: Path, good_from: int) -> Callable[..., int]:
    """A function that notes its calls in a file, and succeeds from a certain one on."""
    name = str(path)

    def attempt(how: str = "raise", **_: Any) -> int:
        with open(name, "a") as file:  # noqa: PTH123
            file.write("x")
        count = os.path.getsize(name)  # noqa: PTH202
        if count >= good_from:
            return count
        if how == "die":
            os._exit(3)
        raise OSError(f"try {count}")

    return attempt


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# -- options --


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retrys": 1}, "there is no option 'retrys'; did you mean 'retries'"),
        ({"rundir": "x"}, "did you mean 'run_dir'"),
        ({"retry_handle": len}, "did you mean 'retry_handler'"),
        ({"checkpoint_mod": "manual"}, "did you mean 'checkpoint_mode'"),
        ({"std_auto_path": len}, "did you mean 'std_autopath'"),
        ({"xyz": 1}, "there are: workers"),
        ({"retries": True}, "retries=True"),
        ({"retry_handler": 5}, "retry_handler=5: give a function"),
        ({"std_autopath": "x"}, "std_autopath='x': give a function"),
        ({"run_dir": 5}, "run_dir=5: give a path"),
        ({"checkpoint_mode": "often"}, "checkpoint_mode='often'"),
        ({"memoizer": object(), "checkpoint_mode": "manual"}, "memoizer= has checkpoint options of its own"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_options_are_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        mpitask.load(**options)


def test_a_configuration_is_not_changed_by_its_use(tmp_path: Path) -> None:
    config = Config(inline=True, run_dir=tmp_path / "runs", retries=1)
    before = dataclasses.asdict(config)
    with mpitask.load(config):
        assert python_app(lambda stdout: 5)(stdout=AUTO_LOGNAME).result(timeout=60) == 5
    assert dataclasses.asdict(config) == before


# -- retries --


@pytest.mark.parametrize("how", ["raise", "die"])
@pytest.mark.parametrize("managed", [False, True])
def test_retries_of_the_configuration_and_of_the_app(
    make_engine: MakeEngine, tmp_path: Path, how: str, managed: bool
) -> None:
    engine = make_engine(inline=how == "raise", retries=2)
    more = {"walltime": 60} if managed else {}
    app = python_app(data_flow_kernel=engine)(tries(tmp_path / "a", 3))
    assert app(how, **more).result(timeout=60) == 3
    once = python_app(retries=0, data_flow_kernel=engine)(tries(tmp_path / "b", 3))
    assert isinstance(once(how, **more).exception(timeout=60), OSError if how == "raise" else WorkerLost)
    assert size(tmp_path / "b") == 1


def test_the_history_of_a_call(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine = make_engine(inline=True, retries=5)
    future = python_app(data_flow_kernel=engine)(tries(tmp_path / "a", 3))(walltime=60)
    assert future.result(timeout=60) == 3
    record = future.task_record
    assert record["fail_history"] == ["OSError('try 1')", "OSError('try 2')"]
    assert (record["fail_count"], record["fail_cost"], record["try_id"]) == (2, 2, 2)
    assert (record["status"], record["retries"], record.get("exception")) == ("exec_done", 5, None)
    assert record["time_returned"] >= record["time_invoked"]
    assert record["executor"] == "engine"


def test_bash_apps_and_timeouts_are_tried_again(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine = make_engine(inline=True, retries=1)
    marks = tmp_path / "marks"
    shell = bash_app(lambda command, **_: command, data_flow_kernel=engine)
    assert shell(f"echo >> {marks}; test $(wc -l < {marks}) = 2").result(timeout=60) == 0
    assert isinstance(shell("exit 2", label="x").exception(timeout=60), BashExitFailure)
    slow = shell("exec sleep 60", walltime=0.1)
    assert isinstance(slow.exception(timeout=60), AppTimeout)
    assert len(slow.task_record["fail_history"]) == 2
    assert marks.read_text() == "\n" * 2


def test_an_argument_that_cannot_be_sent_ends_the_call(make_engine: MakeEngine) -> None:
    engine = make_engine(inline=True, retries=1)
    future = python_app(lambda x, walltime: x, data_flow_kernel=engine)(threading.Lock(), walltime=60)
    assert "cannot be pickled" in str(future.exception(timeout=60))
    assert len(future.task_record["fail_history"]) == 2


# -- the handler --


def test_the_cost_of_a_failure(make_engine: MakeEngine, tmp_path: Path) -> None:
    seen: list[Any] = []

    def half(error: BaseException, record: Any) -> float:
        seen.append((str(error), record["fail_count"], record["fail_history"][-1], record["func_name"]))
        return 0.5

    engine = make_engine(inline=True, retries=1, retry_handler=half)
    app = python_app(data_flow_kernel=engine)(tries(tmp_path / "a", 10))
    with pytest.raises(OSError, match="try 3"):
        app().result(timeout=60)
    assert size(tmp_path / "a") == 3  # 0.5 + 0.5 <= 1, and then no more
    assert seen == [(f"try {n}", n, f"OSError('try {n}')", "attempt") for n in (1, 2, 3)]
    seen.clear()
    assert python_app(data_flow_kernel=engine)(tries(tmp_path / "b", 3))().result(timeout=60) == 3


def test_a_failure_too_dear_or_for_free(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine = make_engine(inline=True, retries=5, retry_handler=lambda error, _: 100 if "try 2" in str(error) else 0)
    with pytest.raises(OSError, match="try 2"):
        python_app(data_flow_kernel=engine)(tries(tmp_path / "a", 10))().result(timeout=60)
    free = make_engine(inline=True, retries=0, retry_handler=lambda *_: 0)
    assert python_app(data_flow_kernel=free)(tries(tmp_path / "b", 5))().result(timeout=60) == 5


def test_a_handler_that_raises_ends_the_call(make_engine: MakeEngine, tmp_path: Path) -> None:
    def judge(error: BaseException, record: Any) -> float:
        raise LookupError(f"no way: {error}")

    engine = make_engine(inline=True, retries=5, retry_handler=judge)
    app = python_app(data_flow_kernel=engine, cache=True, cache_failures=True)(tries(tmp_path / "a", 10))
    for _ in range(2):
        with pytest.raises(LookupError, match="no way: try 1"):
            app().result(timeout=60)
    assert size(tmp_path / "a") == 1


def test_a_handler_that_gives_no_number(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine = make_engine(inline=True, retries=5, retry_handler=lambda *_: "much")
    with pytest.raises(TypeError):
        python_app(data_flow_kernel=engine)(tries(tmp_path / "a", 10))().result(timeout=60)


def test_what_the_handler_is_not_asked_about(make_engine: MakeEngine) -> None:
    asked: list[str] = []

    def note(error: BaseException, record: Any) -> float:
        asked.append(f"{record['func_name']}: {error!r}")
        return 100

    engine = make_engine(inline=True, retries=5, retry_handler=note)
    fail = python_app(lambda: 1 / 0, data_flow_kernel=engine)
    echo = python_app(lambda x: x, data_flow_kernel=engine)
    chain = echo(echo([fail()]))
    assert isinstance(chain.exception(timeout=60), DependencyError)
    cached = python_app(lambda x: x, cache=True, data_flow_kernel=engine)(fail())
    assert isinstance(cached.exception(timeout=60), DependencyError)
    joined = join_app(lambda: fail(), data_flow_kernel=engine)()  # noqa: PLW0108
    assert isinstance(joined.exception(timeout=60), JoinError)
    assert asked == ["<lambda>: ZeroDivisionError('division by zero')"] * 3


def test_the_handler_hears_of_lost_workers_and_of_joins(make_engine: MakeEngine, tmp_path: Path) -> None:
    asked: list[Any] = []

    def note(error: BaseException, record: Any) -> float:
        asked.append((record["id"], error))
        return 1

    engine = make_engine(retries=1, retry_handler=note)
    future = python_app(data_flow_kernel=engine)(tries(tmp_path / "a", 2))("die")
    assert future.result(timeout=60) == 2
    assert [(number, error.task, error.exit_status) for number, error in asked] == [(future.tid, future.tid, 3)]
    asked.clear()
    joined = join_app(lambda: 1 / 0, data_flow_kernel=engine)()
    assert isinstance(joined.exception(timeout=60), ZeroDivisionError)
    assert [number for number, _ in asked] == [joined.tid] * 2


# -- hooks --


def heard_by(make_engine: MakeEngine, **options: Any) -> tuple[Engine, dict[int, list[tuple[str, str]]]]:
    heard: dict[int, list[tuple[str, str]]] = {}
    lock = threading.Lock()

    def note(record: Any, old: str, new: str) -> None:
        with lock:
            heard.setdefault(record["id"], []).append((old, new))

    return make_engine(inline=True, hooks=[note], **options), heard


def test_the_order_of_states(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine, heard = heard_by(make_engine, retries=1)
    echo = python_app(lambda x: x, data_flow_kernel=engine)
    fine = echo(1)
    again = python_app(data_flow_kernel=engine)(tries(tmp_path / "a", 2))()
    failed = python_app(lambda: 1 / 0, data_flow_kernel=engine)()
    not_run = echo(failed)
    joined = join_app(lambda: [echo(2)], data_flow_kernel=engine)()
    concurrent.futures.wait([fine, again, failed, not_run, joined], timeout=60)
    engine.wait(timeout=60)
    start = [("unsched", "pending"), ("pending", "launched")]
    retry = [("launched", "fail_retryable"), ("fail_retryable", "launched")]
    assert heard[fine.tid] == [*start, ("launched", "exec_done")]
    assert heard[again.tid] == [*start, *retry, ("launched", "exec_done")]
    assert heard[failed.tid] == [*start, *retry, ("launched", "failed")]
    assert heard[not_run.tid] == [*start, ("launched", "dep_fail")]
    assert heard[joined.tid] == [*start, ("launched", "joining"), ("joining", "exec_done")]
    counts = {state: n for state, n in kernel_of(engine).states.counts.items() if n}
    assert counts == {"exec_done": 4, "failed": 1, "dep_fail": 1}
    assert not kernel_of(engine).states.tasks


def test_states_of_a_cancelled_call(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine, heard = heard_by(make_engine)
    blocker = python_app(hold.__wrapped__, data_flow_kernel=engine)(str(tmp_path / "gate"))
    soon(blocker.running)
    waiting = python_app(lambda x: x, data_flow_kernel=engine)(1)
    assert waiting.cancel()
    (tmp_path / "gate").touch()
    blocker.result(timeout=60)
    engine.wait(timeout=60)
    assert [new for _, new in heard[waiting.tid]] == ["pending", "launched", "cancelled"]


def test_a_hook_that_raises_harms_nobody(make_engine: MakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    engine = make_engine(inline=True, hooks=[lambda *_: 1 / 0])
    assert python_app(lambda: 5, data_flow_kernel=engine)().result(timeout=60) == 5
    assert "raised" in caplog.text


def test_a_hook_sees_the_end_before_the_caller_does(make_engine: MakeEngine) -> None:
    seen: list[bool] = []
    engine, _ = heard_by(make_engine)
    kernel_of(engine).states.hooks.append(lambda record, _, new: seen.append(new in ("failed", "exec_done")))
    assert python_app(lambda: 5, data_flow_kernel=engine)().result(timeout=60) == 5
    assert seen == [False, False, True]


# -- calls that threads of this process run --


def test_calls_in_threads(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine, heard = heard_by(make_engine, retries=1)
    kernel = kernel_of(engine)
    echo = python_app(lambda x: x, data_flow_kernel=engine)
    lock = threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def call(fn: Callable[..., Any], *args: Any, **more: Any) -> Any:
            return kernel.submit(fn, args, {}, pool=pool, executor="threads", **more)

        future = call(lambda x, y: (x, y), echo(1), [lock])
        assert future.result(timeout=60) == (1, [lock])
        assert future.result()[1][0] is lock
        assert future.exception(timeout=60) is None
        assert future.task_record["executor"] == "threads"
        assert echo(call(lambda: 5)).result(timeout=60) == 5
        assert call(tries(tmp_path / "a", 2)).result(timeout=60) == 2
        failed = call(lambda: 1 / 0)
        assert isinstance(failed.exception(timeout=60), ZeroDivisionError)
        assert isinstance(call(abs, failed).exception(timeout=60), DependencyError)
        assert [call(tries(tmp_path / "b", 1), cache=True).result(timeout=60) for _ in range(2)] == [1, 1]
        gate = threading.Event()
        running = call(gate.wait, 20)
        soon(running.running)
        waiting = call(abs, -1)
        assert not running.cancel()
        assert waiting.cancel()
        assert waiting.cancelled()
        gate.set()
        assert running.result(timeout=60) is True
    engine.wait(timeout=60)
    assert heard[waiting.tid][-1] == ("launched", "cancelled")
    assert not kernel.states.tasks


# -- directories of runs --


def test_runs_are_numbered(tmp_path: Path) -> None:
    parent = tmp_path / "deep" / "runinfo"
    assert [Path(make_run_dir(parent)).name for _ in range(3)] == ["000", "001", "002"]
    (parent / "007").mkdir()
    (parent / "notes").mkdir()
    (parent / "\u00b2").mkdir()  # a digit, but no number
    assert Path(make_run_dir(parent)).name == "008"
    assert Path(make_run_dir(parent)).is_absolute()
    with pytest.raises(ConfigurationError, match="cannot be made"):
        make_run_dir("/proc/no")


EIGHT = """
import os
from mpitask.dataflow.kernel import make_run_dir
gate, opener = os.pipe()
children = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        os.close(opener)
        os.read(gate, 1)  # ends for all of them at once
        os.write(1, "".join(make_run_dir("runs") + "\\n" for _ in range(5)).encode())
        os._exit(0)
    children.append(pid)
os.close(opener)
print([os.waitpid(pid, 0)[1] for pid in children])
"""


@pytest.mark.writes
def test_eight_processes_at_once(launcher: Launcher, tmp_path: Path) -> None:
    done = launcher.run(EIGHT, plain=True)
    assert str([0] * 8) in done.out, done.err
    made = [Path(line).name for line in done.out.splitlines() if line.startswith("/")]
    assert sorted(made) == [f"{n:03d}" for n in range(40)]
    assert len(list((tmp_path / "runs").iterdir())) == 40


def test_each_engine_has_its_own(make_engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engines = [make_engine(inline=True, run_dir="here") for _ in range(2)]
    assert not (tmp_path / "here").exists()
    assert [kernel_of(engine).run_dir for engine in engines] == [
        str(tmp_path / "here" / name) for name in ("000", "001")
    ]


def test_options_without_effect_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    base._say_once.cache_clear()
    for _ in range(2):
        mpitask.python_app(resources={"cores": 2}, executors=["engine"])(abs)
    texts = [record.getMessage() for record in caplog.records]
    assert [text.split()[0] for text in texts] == ["resources=", "executors="]
