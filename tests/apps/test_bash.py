"""bash_app: how commands end, where their output goes, and what they see of the world."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apps_helpers import soon

from helpers.processes import Launcher
from mpitask import (
    AUTO_LOGNAME,
    AppBadFormatting,
    AppTimeout,
    BadStdStreamFile,
    BashAppNoReturn,
    BashExitFailure,
    ConfigurationError,
    Engine,
    File,
    MissingOutputs,
    WorkerLost,
    bash_app,
)
from mpitask.dataflow import kernel_of

pytestmark = pytest.mark.usefixtures("engine")


@bash_app
def shell(command: Any, **_: Any) -> Any:
    """What it is given."""
    return command


def has_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z"
    except OSError:
        return True


# -- ends --


def test_the_result_of_a_command_is_0(tmp_path: Path) -> None:
    future = shell(f"echo hello > {tmp_path}/out")
    assert future.result(timeout=60) == 0
    assert (tmp_path / "out").read_text() == "hello\n"
    assert future.exception() is None


@pytest.mark.parametrize("code", [1, 7, 126, 127, 255])
def test_exit_codes(code: int) -> None:
    with pytest.raises(BashExitFailure, match=f"bash_app shell failed with unix exit code {code}") as caught:
        shell(f"exit {code}").result(timeout=60)
    assert (caught.value.app_name, caught.value.exitcode) == ("shell", code)


def test_commands_that_are_not_there_and_not_executable(tmp_path: Path) -> None:
    assert shell("/there/is/no/such/command").exception(timeout=60).exitcode == 127
    (tmp_path / "data").touch()
    assert shell(f"{tmp_path}/data").exception(timeout=60).exitcode == 126


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_a_signal_is_a_negative_code(name: str) -> None:
    number = signal.Signals[name]
    with pytest.raises(BashExitFailure, match=name) as caught:
        shell(f"kill -{int(number)} $$; sleep 60").result(timeout=60)
    assert caught.value.exitcode == -number


@pytest.mark.parametrize("value", [None, 5, b"true", ["true"]], ids=repr)
def test_something_else_than_text_is_no_command(value: Any) -> None:
    with pytest.raises(ValueError, match=f"Expected a str for bash_app commandline, got {type(value).__name__}"):
        shell(value).result(timeout=60)


def test_a_command_is_not_cut_at_a_nul(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="NUL"):
        shell(f"touch {tmp_path}/done\0 --help").result(timeout=60)
    assert not (tmp_path / "done").exists()


def test_unicode_and_long_commands(tmp_path: Path) -> None:
    text = "ä€\U0001f600" * 5000
    assert shell(f"echo -n '{text}'", stdout=str(tmp_path / "ünïcode")).result(timeout=60) == 0
    assert (tmp_path / "ünïcode").read_text() == text


def test_what_the_function_raises() -> None:
    @bash_app
    def formats(values: list[int]) -> str:
        return "echo {} {}".format(*values)

    @bash_app
    def looks_up(value: Any) -> str:
        return value.command  # type: ignore[no-any-return]

    @bash_app
    def divides(value: int) -> str:
        return f"echo {1 // value}"

    assert formats([1, 2]).result(timeout=60) == 0
    with pytest.raises(AppBadFormatting, match="formats could not format its command"):
        formats([1]).result(timeout=60)
    with pytest.raises(BashAppNoReturn, match="'int' object has no attribute 'command'"):
        looks_up(1).result(timeout=60)
    with pytest.raises(ZeroDivisionError):
        divides(0).result(timeout=60)


def test_exceptions_say_where_the_function_failed() -> None:
    error = shell(5).exception(timeout=60)
    assert "ValueError" in str(error.__cause__)


# -- outputs --


def test_missing_outputs(tmp_path: Path) -> None:
    there, missing = File(tmp_path / "there"), File(tmp_path / "missing")
    future = shell(f"touch {tmp_path}/there", outputs=[there, missing])
    with pytest.raises(MissingOutputs, match="Missing outputs") as caught:
        future.result(timeout=60)
    assert [file.filepath for file in caught.value.outputs] == [str(tmp_path / "missing")]
    assert str(tmp_path / "missing") in str(caught.value)
    assert isinstance(future.outputs[0].exception(timeout=60), MissingOutputs)


def test_a_command_that_fails_is_not_asked_for_outputs(tmp_path: Path) -> None:
    assert isinstance(shell("false", outputs=[File(tmp_path / "a")]).exception(timeout=60), BashExitFailure)


def test_patterns_among_outputs(tmp_path: Path) -> None:
    pattern = File(tmp_path / "part-*.txt")
    future = shell(f"cd {tmp_path}; touch part-2.txt part-1.txt other.txt", outputs=[pattern])
    assert future.result(timeout=60) == 0
    assert [file.filename for file in future.outputs[0].result(timeout=60)] == ["part-1.txt", "part-2.txt"]
    with pytest.raises(MissingOutputs):
        shell("true", outputs=[File(tmp_path / "none-*.txt")]).result(timeout=60)


def test_a_name_with_brackets_is_a_file_if_it_is_there(tmp_path: Path) -> None:
    future = shell(f"touch '{tmp_path}/data[1].txt'", outputs=[File(tmp_path / "data[1].txt")])
    assert future.result(timeout=60) == 0
    assert future.outputs[0].result(timeout=60).filename == "data[1].txt"


# -- walltime --


def test_walltime_ends_the_whole_process_group(tmp_path: Path) -> None:
    pids = [tmp_path / name for name in ("shell", "child", "deaf")]
    command = (
        f"(trap '' TERM; echo $BASHPID > {pids[2]}.part; mv {pids[2]}.part {pids[2]}; while :; do sleep 0.1; done) & "
        f"sleep 1000 & echo $! > {pids[1]}; echo $$ > {pids[0]}; wait"
    )
    with pytest.raises(AppTimeout, match=r"App shell exceeded walltime: 2 seconds"):
        shell(command, walltime=2).result(timeout=60)
    for path in pids:
        number = int(path.read_text())
        soon(lambda number=number: has_gone(number))


def test_a_command_within_its_walltime() -> None:
    assert shell("true", walltime=60).result(timeout=60) == 0
    assert shell("exit 3", walltime=60).exception(timeout=60).exitcode == 3
    assert shell("true", walltime=1e12).result(timeout=60) == 0


@pytest.mark.parametrize(("walltime", "kind"), [("1", TypeError), (True, TypeError), (-1, ValueError)])
def test_a_wrong_walltime_is_told_of_at_the_call(walltime: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="walltime"):
        shell("true", walltime=walltime)


# -- streams --


def test_stdout_as_text_path_tuple_and_file(tmp_path: Path) -> None:
    (tmp_path / "tuple").write_text("old\n")
    (tmp_path / "file").write_text("old\n")
    (tmp_path / "text").write_text("old\n")
    assert shell("echo new", stdout=str(tmp_path / "text")).result(timeout=60) == 0
    assert shell("echo new", stdout=tmp_path / "a" / "b" / "path").result(timeout=60) == 0
    assert shell("echo new", stdout=(tmp_path / "tuple", "w")).result(timeout=60) == 0
    assert shell("echo new", stdout=(str(tmp_path / "bytes"), "wb")).result(timeout=60) == 0
    future = shell("echo new", stdout=File(tmp_path / "file"))
    assert future.stdout.result(timeout=60).filepath == str(tmp_path / "file")
    found = {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"text": "old\nnew\n", "path": "new\n", "tuple": "new\n", "bytes": "new\n", "file": "new\n"}


def test_the_future_knows_its_streams(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    future = shell("true", stdout=tmp_path / "out", stderr=(out, "a"))
    assert (future.stdout, future.stderr) == (out, (out, "a"))
    assert shell("true").stdout is None
    future.result(timeout=60)


@pytest.mark.parametrize("mode", ["a", "w", "wb"])
def test_stderr_begins_with_the_command(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "err"
    assert shell("echo wörd 1>&2", stderr=(path, mode)).result(timeout=60) == 0
    assert path.read_text() == ("--> executable follows <--\necho wörd 1>&2\n--> end executable <--\nwörd\n")


def test_both_streams_in_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "both")
    assert shell("echo one; echo two 1>&2; echo three", stdout=path, stderr=path).result(timeout=60) == 0
    assert Path(path).read_text().splitlines()[3:] == ["one", "two", "three"]


def test_defaults_in_the_signature(tmp_path: Path) -> None:
    out, made = str(tmp_path / "out"), (File(tmp_path / "made"),)

    @bash_app
    def says(word: str, stdout: str = out, outputs: Any = made) -> str:
        return f"echo {word}; touch {outputs[0]}"

    future = says("hello")
    assert future.result(timeout=60) == 0
    assert (future.stdout, [output.filename for output in future.outputs]) == (out, [str(tmp_path / "made")])
    assert says("you", stdout=str(tmp_path / "other")).result(timeout=60) == 0
    assert Path(out).read_text() == "hello\n"
    assert (tmp_path / "other").read_text() == "you\n"


@pytest.mark.parametrize("label", [None, "blue"])
def test_automatic_names(engine: Engine, label: str | None) -> None:
    named = {} if label is None else {"label": label}
    future = shell("echo out; echo err 1>&2", stdout=AUTO_LOGNAME, stderr=AUTO_LOGNAME, **named)
    future.result(timeout=60)
    stem = f"task_{future.tid:04d}_shell" + (f"_{label}" if label else "")
    folder = Path(kernel_of(engine).run_dir) / "task_logs" / "0000"
    assert (future.stdout, future.stderr) == (f"{folder}/{stem}.stdout", f"{folder}/{stem}.stderr")
    assert Path(future.stdout).read_text() == "out\n"
    assert Path(future.stderr).read_text().endswith("err\n")


def test_a_label_of_the_app() -> None:
    labelled = bash_app(label="mine")(shell.__wrapped__)
    future = labelled("true", stdout=AUTO_LOGNAME)
    future.result(timeout=60)
    assert future.stdout.endswith("_shell_mine.stdout")


def test_names_by_a_function_of_the_configuration(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    asked: list[Any] = []

    def choose(record: Any, stream: str) -> Any:
        asked.append((record["func_name"], record["id"], stream))
        kind = record["kwargs"]["label"]
        path = tmp_path / "logs" / f"{stream}-{kind}"
        return {"text": str(path), "path": path, "tuple": (path, "w"), "file": File(path)}[kind]

    engine = make_engine(std_autopath=choose)
    app = bash_app(data_flow_kernel=engine)(shell.__wrapped__)
    for kind in ("text", "path", "tuple", "file"):
        future = app("echo named", stdout=AUTO_LOGNAME, label=kind)
        assert future.result(timeout=60) == 0
        assert asked == [("shell", future.tid, "stdout")]
        assert (tmp_path / "logs" / f"stdout-{kind}").read_text() == "named\n"
        asked.clear()
    with pytest.raises(KeyError, match="of no kind"):  # what it raises comes at once
        app("true", stderr=AUTO_LOGNAME, label="of no kind")
    assert app("true").result(timeout=60) == 0
    engine.wait(timeout=60)


def test_bad_paths_and_modes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    for spec in (tmp_path, tmp_path / "file" / "below", (tmp_path / "x", "q"), (tmp_path / "file", "r")):
        with pytest.raises(BadStdStreamFile, match="std"):
            shell("true", stdout=spec).result(timeout=60)
        with pytest.raises(BadStdStreamFile, match="stderr"):
            shell("true", stderr=spec).result(timeout=60)
    assert (tmp_path / "file").read_text() == "keep"


@pytest.mark.parametrize("spec", [5, True, ["x"], ("x", "w", 1), ("x",), ("x", 5), (5, "w"), b"x"], ids=repr)
def test_wrong_types_are_told_of_at_the_call(spec: Any) -> None:
    with pytest.raises(TypeError, match=r"stdout=.*: give a path, \(path, mode\), a File, or AUTO_LOGNAME"):
        shell("true", stdout=spec)
    with pytest.raises(TypeError, match="outputs"):
        shell("true", outputs=["text"])
    with pytest.raises(TypeError, match="inputs"):
        shell("true", inputs=5)


# -- the end of standard error, in the exception --


@pytest.mark.parametrize("redirected", [True, False])
def test_the_exception_quotes_the_end_of_stderr(tmp_path: Path, redirected: bool) -> None:
    streams = {"stderr": str(tmp_path / "err")} if redirected else {}
    with pytest.raises(BashExitFailure) as caught:
        shell("for i in $(seq 30); do echo line $i 1>&2; done; exit 4", **streams).result(timeout=60)
    assert caught.value.stderr_tail.splitlines() == [f"line {i}" for i in range(21, 31)]
    assert "line 30" in str(caught.value)
    assert "line 20" not in str(caught.value)


def test_only_what_this_call_has_written_is_quoted(tmp_path: Path) -> None:
    for word in ("first", "second"):
        error = shell(f"echo {word} 1>&2; false", stderr=str(tmp_path / "err")).exception(timeout=60)
        assert error.stderr_tail == word
    assert shell("false", stderr=str(tmp_path / "err")).exception(timeout=60).stderr_tail == ""


def test_devices_are_not_read_back(tmp_path: Path) -> None:
    assert shell("echo x 1>&2; false", stderr="/dev/null").exception(timeout=60).stderr_tail == ""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        error = shell("echo x 1>&2; false", stderr=(tmp_path / "pipe", "w")).exception(timeout=60)
        assert (error.exitcode, error.stderr_tail) == (1, "")
        assert os.read(reader, 1000).endswith(b"x\n")
    finally:
        os.close(reader)


SCRIPT = """
from mpitask import AppTimeout, bash_app
@bash_app
def shell(command, walltime=None): return command
shell("echo to stdout; echo to stderr 1>&2").result()
try:
    shell("echo before its end 1>&2; sleep 100", walltime=0.5).result()
except AppTimeout:
    print("timed out", flush=True)
"""


def test_what_is_not_redirected_goes_where_the_script_writes(launcher: Launcher) -> None:
    done = launcher.run(SCRIPT, options=["--workers", "1"])
    assert done.rc == 0, done.err
    assert done.out.splitlines() == ["to stdout", "timed out"]
    assert done.err.splitlines() == ["to stderr", "before its end"]


# -- what a command sees --


def test_the_launcher_is_not_seen(tmp_path: Path) -> None:
    @bash_app
    def environment(out: str) -> str:
        os.environ.update(
            PMI_RANK="1", OMPI_COMM_WORLD_RANK="1", PMIX_RANK="1", HYDI_CONTROL_FD="1", HYDRA_IFACE="lo", KEPT="yes"
        )
        return f"env > {out}"

    assert environment(str(tmp_path / "env")).result(timeout=60) == 0
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {"KEPT", "PATH", "HYDRA_IFACE"} <= names
    assert not [name for name in names if name.startswith(("PMI", "OMPI", "HYDI"))]


def test_a_process_group_of_its_own_and_no_input(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shell("cat; echo $$; cut -d' ' -f5 /proc/$$/stat", stdout=out).result(timeout=60) == 0
    own, group = out.read_text().split()
    assert own == group
    assert int(group) != os.getpgid(0)


def test_signals_are_as_usual_for_a_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shell("grep -E 'Sig(Blk|Ign)' /proc/self/status", stdout=out).result(timeout=60) == 0
    blocked, ignored = (int(line.split()[1], 16) for line in out.read_text().splitlines())
    assert blocked == 0
    assert not ignored & (1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1) | 1 << (signal.SIGPIPE - 1))


def test_a_command_ends_with_its_worker(tmp_path: Path) -> None:
    with pytest.raises(WorkerLost) as caught:
        shell(f"echo $$ > {tmp_path}/pid; kill -9 $PPID; exec sleep 1000").result(timeout=60)
    assert caught.value.signal == signal.SIGKILL
    soon(lambda: has_gone(int((tmp_path / "pid").read_text())))
    assert shell("true").result(timeout=60) == 0


# -- apps --


def test_options(tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    @bash_app(retries=2, priority=3, cache=True, ignore_for_cache=["verbose"], executors=["engine"])
    def third_time(verbose: bool = False) -> str:
        return f"echo x >> {marks}; test $(wc -l < {marks}) = 3"

    assert third_time().result(timeout=60) == 0
    assert third_time(verbose=True).result(timeout=60) == 0
    assert marks.read_text() == "x\n" * 3


def test_futures_as_arguments(tmp_path: Path) -> None:
    first = shell(f"echo 5 > {tmp_path}/number", outputs=[File(tmp_path / "number")])

    @bash_app
    def copies(inputs: Any = (), outputs: Any = ()) -> str:
        return f"cat {inputs[0]} > {outputs[0]}"

    second = copies(inputs=[first.outputs[0]], outputs=[File(tmp_path / "copy")])
    assert second.result(timeout=60) == 0
    assert Path(second.outputs[0].result()).read_text() == "5\n"


@pytest.mark.parametrize("option", [{"retries": -1}, {"executors": "threads"}, {"ignore_for_cache": "x"}])
def test_wrong_options(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        bash_app(**option)


def test_inline_workers_run_commands(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    app = bash_app(data_flow_kernel=make_engine(inline=True))(shell.__wrapped__)
    assert app("echo here", stdout=str(tmp_path / "out")).result(timeout=60) == 0
    assert (tmp_path / "out").read_text() == "here\n"
    with pytest.raises(AppTimeout):
        app("sleep 1000", walltime=0.3).result(timeout=60)


def test_a_command_of_any_length(tmp_path: Path) -> None:
    out = str(tmp_path / "out")

    @bash_app
    def long(size: int, end: str, stdout: str) -> str:
        return f"x='{'y' * size}'; echo ${{#x}} $0 $#; ls -l /proc/$$/fd | grep -c mpitask-command; {end}"

    for size in (10, (1 << 17) - 200, 1 << 17, 300_000, 3_000_000):
        assert long(size, "true", stdout=out + str(size)).result(timeout=60) == 0
        assert Path(out + str(size)).read_text() == f"{size} /bin/bash 0\n0\n"
    with pytest.raises(BashExitFailure) as caught:
        long(300_000, "exit 7 # the end", stdout=out).result(timeout=60)
    assert caught.value.exitcode == 7
    assert len(str(caught.value)) < 1000
    assert "# the end" in str(caught.value)
    assert caught.value.command.startswith("x='yyy")
