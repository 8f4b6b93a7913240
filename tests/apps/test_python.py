"""python_app: what can be an app, its options and keyword arguments, captured output, walltime."""

from __future__ import annotations

import collections
import ctypes
import functools
import importlib
import operator
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from apps_helpers import Box, Labels, Point, Scaled, hold, plus, use_up

from mpitask import (
    AppTimeout,
    BadStdStreamFile,
    ConfigurationError,
    DependencyError,
    Engine,
    File,
    SerializationError,
    python_app,
)

pytestmark = pytest.mark.usefixtures("engine")


@python_app
def echo(x: Any = None, **kwargs: Any) -> Any:
    return (x, kwargs) if kwargs else x


# -- what can be an app --


def test_a_module_that_only_the_script_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert python_app(abs)(-1).result(timeout=60) == 1  # what the script changes after this is not seen
    (tmp_path / "found_late.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    fn = importlib.import_module("found_late").twice
    for wanted in (python_app(fn), python_app(lambda x: __import__("found_late").twice(x))):
        with pytest.raises(ModuleNotFoundError, match="found_late") as caught:
            wanted(1).result(timeout=60)
        assert "PYTHONPATH" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("fn", "args", "result"),
    [
        (plus, (1, 2), 3),
        (lambda x: x + 1, (1,), 2),
        (functools.partial(plus, b=5), (1,), 6),
        (functools.partial(functools.partial(plus, 1), b=5), (), 6),
        (np.sum, ([1, 2, 3],), 6),
        (np.add, (1, 2), 3),
        (len, ([1, 2],), 2),
        (dict, ([("a", 1)],), {"a": 1}),
        (operator.itemgetter(1), ([5, 6],), 6),
        (Scaled(3), (4,), 12),
        (Scaled(3).method, (4,), 7),
    ],
    ids=[
        "function",
        "lambda",
        "partial",
        "partial2",
        "numpy",
        "ufunc",
        "builtin",
        "class",
        "getter",
        "object",
        "bound",
    ],
)
@pytest.mark.parametrize("options", [{}, {"retries": 1}, {"cache": True}], ids=["plain", "retries", "cache"])
def test_callables(fn: Callable[..., Any], args: tuple[Any, ...], result: Any, options: dict[str, Any]) -> None:
    app = python_app(**options)(fn) if options else python_app(fn)
    assert app(*args).result(timeout=60) == result
    assert app.__wrapped__ is fn or app.__wrapped__ == fn
    assert "python_app" in repr(app)


def test_all_options_at_once(engine: Engine) -> None:
    @python_app(
        retries=1,
        priority=2,
        cache=True,
        ignore_for_cache=["b"],
        executors=["engine"],
        label="mine",
        resources={"cores": 2, "memory": 100, "gpus": 0.5},
        data_flow_kernel=engine,
    )
    def add(a: int, b: int = 1) -> int:
        return a + b

    future = add(1)
    assert future.result(timeout=60) == 2
    assert future.task_record is not None
    assert future.task_record["resource_specification"] == {"cores": 2, "memory": 100, "gpus": 0.5}
    assert add(1, b=5).result(timeout=60) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"retries": True},
        {"priority": 1 << 31},
        {"executors": "threads"},
        {"ignore_for_cache": "x"},
        {"resources": 5},
        {"resources": {"cores": "two"}},
        {"resources": {5: 1}},
    ],
    ids=repr,
)
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        python_app(**options)
    with pytest.raises(ConfigurationError, match="makes apps of functions"):
        python_app(5)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="colour"):
        python_app(colour=1)  # type: ignore[call-overload]


def test_an_app_looks_like_its_function() -> None:
    app = python_app(plus)
    assert (app.__name__, app.__doc__, app.__wrapped__(1)) == ("plus", "The sum.", 11)
    again = pickle.loads(cloudpickle.dumps(python_app(lambda x: x + 1, retries=1)))
    assert again(1).result(timeout=60) == 2


def test_methods_with_keywords_that_mean_something(tmp_path: Path) -> None:
    class Thing:
        base = 4

        @python_app
        def tell(self, x: int, stdout: Any = None) -> int:
            print(self.base, x)
            return self.base + x

    assert Thing().tell(3, stdout=str(tmp_path / "out")).result(timeout=60) == 7
    assert (tmp_path / "out").read_text() == "4 3\n"


# -- keyword arguments with a meaning --


def test_they_are_passed_on(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    future = echo(
        inputs=[1, echo(2)],
        outputs=[File(tmp_path / "made")],
        stdout=out,
        stderr=(out, "a"),
        walltime=60,
        label="mine",
        parsl_resource_specification={"cores": 1},
    )
    _, got = future.result(timeout=60)
    assert [str(file) for file in got.pop("outputs")] == [str(tmp_path / "made")]
    assert got == {
        "inputs": [1, 2],
        "stdout": out,
        "stderr": (out, "a"),
        "walltime": 60,
        "label": "mine",
        "parsl_resource_specification": {"cores": 1},
    }


@pytest.mark.parametrize("name", ["walltime", "label", "inputs", "stdout"])
def test_a_function_that_does_not_take_them_does_not_get_them(name: str, tmp_path: Path) -> None:
    value: Any = {"walltime": 60, "label": "x", "inputs": [], "stdout": str(tmp_path / "out")}[name]
    assert python_app(plus)(1, 2, **{name: value}).result(timeout=60) == 3


def test_bad_containers_are_told_of_at_the_call() -> None:
    for wrong in ({"inputs": None}, {"outputs": None}, {"inputs": 5}, {"outputs": ["text"]}, {"outputs": [None]}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            echo(**wrong)
    assert echo(inputs=(echo(1), None)).result(timeout=60) == (None, {"inputs": [1, None]})


def test_defaults_in_the_signature(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    made = [File(tmp_path / "made")]

    @python_app
    def tell(word: str, stdout: str = out, outputs: Any = made, walltime: float = 60) -> Any:
        print(word, end=" ")  # in one write: both may write at the same time
        outputs[0] = None
        return walltime

    first, second = tell("one"), tell("two")
    assert (first.result(timeout=60), second.result(timeout=60)) == (60, 60)
    assert first.stdout == out
    assert [output.result(timeout=60).filepath for output in first.outputs] == [str(tmp_path / "made")]
    assert sorted(Path(out).read_text().split()) == ["one", "two"]
    assert made[0].url == str(tmp_path / "made")

    @python_app
    def positional(stdout: str = out) -> str:
        return stdout

    assert positional("mine").result(timeout=60) == "mine"


def test_the_default_walltime_counts() -> None:
    @python_app
    def naps(walltime: float = 0.2) -> None:
        time.sleep(60)

    with pytest.raises(AppTimeout, match=r"App naps exceeded walltime: 0\.2 seconds"):
        naps().result(timeout=60)


def test_the_callers_containers_stay_as_they_are(tmp_path: Path) -> None:
    source = echo(1)
    inputs, outputs, nested = [source, [source]], [File(tmp_path / "a")], {"k": [source]}
    keep = ([*inputs], [*outputs], {"k": nested["k"]})
    future = echo(nested, inputs=inputs, outputs=outputs)
    got, kwargs = future.result(timeout=60)
    assert (got, kwargs["inputs"]) == ({"k": [1]}, [1, [1]])
    assert (inputs, outputs, nested) == keep
    assert inputs[1] == [source]
    assert outputs[0].local_path is None


@pytest.mark.parametrize("managed", [False, True], ids=["plain", "managed"])
def test_futures_in_containers_of_all_kinds(managed: bool) -> None:
    one = echo(1)
    labels = Labels([one])
    labels.colour = "blue"
    counter: Any = collections.Counter(a=2)
    counter["b"] = one
    default = collections.defaultdict(list, {one: [one]})
    values = [Point(one, [one]), labels, counter, default, collections.OrderedDict(b=one), Box(one), {one}, (one,)]
    if managed:
        got = python_app(lambda v, n: v, cache=True)(values, time.monotonic_ns()).result(timeout=60)
    else:
        got = echo(values).result(timeout=60)
    assert got == [Point(1, [1]), [1], {"a": 2, "b": 1}, {1: [1]}, {"b": 1}, Box(1), {1}, (1,)]
    names = ["Point", "Labels", "Counter", "defaultdict", "OrderedDict", "Box", "set", "tuple"]
    assert [type(value).__name__ for value in got] == names
    assert got[1].colour == "blue"


def test_what_holds_itself() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    got = echo(loop, walltime=60).result(timeout=60)[0]
    assert got[1] is got


def test_failed_futures_in_lists_are_dependencies() -> None:
    bad = python_app(lambda: 1 / 0)()
    for call in (lambda: echo([bad]), lambda: echo(inputs=[bad]), lambda: echo([{"a": bad}], walltime=60)):
        with pytest.raises(DependencyError, match="ZeroDivisionError"):
            call().result(timeout=60)


def test_arguments_that_cannot_be_pickled(tmp_path: Path) -> None:
    with pytest.raises(SerializationError, match="argument 0"):
        echo(sys._getframe())
    with pytest.raises(SerializationError, match="argument 0"):
        echo(sys._getframe(), walltime=60).result(timeout=60)


# -- standard output and error --


@python_app
def talk(word: str, **_: Any) -> str:
    print("python", word)
    print("error", word, file=sys.stderr)
    libc = ctypes.CDLL(None)
    libc.printf(b"libc %s\n", word.encode())
    subprocess.run(["/bin/sh", "-c", f"echo child {word}; echo child error {word} 1>&2"], check=True)
    os.write(1, f"bare {word}\n".encode())
    return word


def test_output_is_captured(tmp_path: Path) -> None:
    out, err = tmp_path / "deep" / "out", tmp_path / "err"
    assert talk("a", stdout=out, stderr=str(err)).result(timeout=60) == "a"
    assert sorted(out.read_text().splitlines()) == ["bare a", "child a", "libc a", "python a"]
    assert sorted(err.read_text().splitlines()) == ["child error a", "error a"]


def test_output_as_tuple_and_file(tmp_path: Path) -> None:
    (tmp_path / "tuple").write_text("old\n")
    (tmp_path / "file").write_text("old\n")
    talk("b", stdout=(tmp_path / "tuple", "w")).result(timeout=60)
    future = talk("b", stdout=File(tmp_path / "file"), stderr=tmp_path / "err")
    assert future.stdout.result(timeout=60).filepath == str(tmp_path / "file")
    assert "old" not in (tmp_path / "tuple").read_text() + (tmp_path / "file").read_text()
    assert future.stderr == str(tmp_path / "err")


def test_both_streams_in_one_file(tmp_path: Path) -> None:
    talk("c", stdout=tmp_path / "both", stderr=tmp_path / "both").result(timeout=60)
    assert len((tmp_path / "both").read_text().splitlines()) == 6


def test_output_comes_back_afterwards(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make_engine()  # one worker: all calls are in one process

    @python_app(data_flow_kernel=engine)
    def where(stdout: Any = None, stderr: Any = None, fails: bool = False) -> tuple[list[str], int]:
        if fails:
            raise LookupError
        return [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in (1, 2)], len(
            list(Path("/proc/self/fd").iterdir())
        )

    before, open_before = where().result(timeout=60)
    out, err = str(tmp_path / "out"), str(tmp_path / "err")
    assert where(stdout=out, stderr=err).result(timeout=60)[0] == [out, err]
    assert isinstance(where(stdout=out, stderr=err, fails=True).exception(timeout=60), LookupError)
    assert where().result(timeout=60) == (before, open_before)


def test_output_of_a_call_that_fails_is_kept(tmp_path: Path) -> None:
    @python_app
    def says(stdout: Any) -> None:
        print("so far")
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        says(stdout=str(tmp_path / "out")).result(timeout=60)
    assert (tmp_path / "out").read_text() == "so far\n"


def test_bad_paths_and_types(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for spec in (tmp_path, tmp_path / "file" / "below", (tmp_path / "x", "q"), (tmp_path / "file", "r")):
        with pytest.raises(BadStdStreamFile):
            talk("x", stderr=spec).result(timeout=60)
    for wrong in (5, ["x"], ("x", "w", 1)):
        with pytest.raises(TypeError, match="stderr="):
            talk("x", stderr=wrong)


# -- walltime --


@pytest.mark.parametrize("how", ["sleep", "loop", "child", "usleep"])
def test_walltime(how: str) -> None:
    before = time.monotonic()
    with pytest.raises(AppTimeout, match=r"App use_up exceeded walltime: 0\.1 seconds"):
        python_app(functools.wraps(use_up)(lambda how, walltime: use_up(how)))(how, walltime=0.1).result(timeout=60)
    assert time.monotonic() - before < 60


def test_what_does_not_let_itself_be_interrupted_loses_its_process() -> None:
    pids = {python_app(os.getpid)().result(timeout=60) for _ in range(10)}
    stuck = python_app(lambda how, walltime: use_up(how))
    futures = [stuck(how, walltime=0.1) for how in ("C", "swallows")]
    for future in futures:
        with pytest.raises(AppTimeout, match=r"exceeded walltime: 0\.1 seconds; its process was ended"):
            future.result(timeout=60)
    assert python_app(os.getpid)().result(timeout=60) not in pids


def test_a_walltime_leaves_nothing_armed(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()

    @python_app(data_flow_kernel=engine)
    def armed(walltime: float | None = None, fails: bool = False) -> tuple[str, bool, Any]:
        if fails:
            raise LookupError
        timers = Path("/proc/self/timers").read_text()
        return timers, signal.getitimer(signal.ITIMER_REAL) == (0, 0), signal.getsignal(signal.SIGALRM)

    nothing = ("", True, signal.SIG_DFL)
    assert armed().result(timeout=60) == nothing
    assert armed(walltime=60).result(timeout=60)[:2] != nothing[:2]
    assert armed().result(timeout=60) == nothing
    assert isinstance(armed(walltime=60, fails=True).exception(timeout=60), LookupError)
    assert armed().result(timeout=60) == nothing
    for walltime in (1e12, float("inf"), 10**30):
        assert armed(walltime=walltime).result(timeout=60)[0] != ""
    assert armed().result(timeout=60) == nothing


@pytest.mark.parametrize(
    ("walltime", "kind"), [("1", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)]
)
def test_a_wrong_walltime_is_told_of_at_the_call(walltime: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="walltime"):
        echo(1, walltime=walltime)


def test_a_walltime_that_is_a_future() -> None:
    with pytest.raises(AppTimeout):
        python_app(lambda walltime: time.sleep(60))(walltime=echo(0.1)).result(timeout=60)
    assert echo(1, walltime=np.float32(60)).result(timeout=60)[0] == 1


def test_a_walltime_is_of_each_attempt() -> None:
    future = python_app(lambda walltime: time.sleep(60), retries=2)(walltime=0.1)
    assert isinstance(future.exception(timeout=60), AppTimeout)
    assert len(future.task_record["fail_history"]) == 3


def test_walltime_of_inline_workers(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(inline=True)

    @python_app(data_flow_kernel=engine)
    def spin(how: str, walltime: float = 0.2) -> str:
        while how == "loop":
            pass
        return how

    with pytest.raises(AppTimeout, match=r"App spin exceeded walltime: 0\.2 seconds"):
        spin("loop").result(timeout=60)
    assert [spin("once", walltime=60).result(timeout=60) for _ in range(3)] == ["once"] * 3


def test_priority_of_managed_calls(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make_engine()
    blocker = python_app(hold.__wrapped__, data_flow_kernel=engine)(str(tmp_path / "gate"))
    order = tmp_path / "order"

    def note(name: str, walltime: float = 60) -> None:
        with order.open("a") as file:
            file.write(name)

    low = python_app(note, priority=-1, data_flow_kernel=engine)
    high = python_app(note, priority=5, data_flow_kernel=engine)
    futures = [low("l") for _ in range(3)] + [high("h") for _ in range(3)]
    (tmp_path / "gate").touch()
    for future in [blocker, *futures]:
        future.result(timeout=60)
    assert sorted(order.read_text()[:2]) == ["h", "h"] or order.read_text().index("l") >= 2
