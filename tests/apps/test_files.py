"""Files between calls: outputs and their futures, patterns, transfers, failures."""

from __future__ import annotations

import concurrent.futures
import functools
import http.server
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apps_helpers import hold, soon

from mpitask import (
    BashExitFailure,
    DataFuture,
    DependencyError,
    Engine,
    File,
    MissingOutputs,
    bash_app,
    join_app,
    python_app,
)
from mpitask.dataflow import kernel_of
from mpitask.staging import HTTPInTaskStaging, Staging, StagingError

pytestmark = pytest.mark.usefixtures("engine")


@python_app
def write(text: str, outputs: Any = ()) -> int:
    for file in outputs:
        with open(file, "w") as out:  # noqa: PTH123 - a File is a path
            out.write(text)
    return len(outputs)


@python_app
def read(*files: Any, inputs: Any = ()) -> Any:
    texts = [open(file).read() for file in (*files, *inputs)]  # noqa: PTH123, SIM115
    return texts[0] if len(texts) == 1 else texts


@bash_app
def concatenate(inputs: Any = (), outputs: Any = ()) -> str:
    return f"cat {' '.join(map(str, inputs))} > {outputs[0]}"


@python_app
def names(files: Any, inputs: Any = ()) -> list[str]:
    return [file.filename for file in files]


class Web:
    """A web server with a folder of files; counts requests."""

    def __init__(self, folder: Path) -> None:
        self.requests: Counter[str] = Counter()
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests[self.path] += 1
                super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        folder.mkdir()
        self.folder = folder
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
        )
        self.server.daemon_threads = False
        self.thread = threading.Thread(target=functools.partial(self.server.serve_forever, 0.01))
        self.thread.start()

    def give(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return f"http://127.0.0.1:{self.server.server_address[1]}/{name}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    server = Web(tmp_path / "web")
    yield server
    server.close()


# -- outputs --


def test_futures_of_files(tmp_path: Path) -> None:
    asked = [File(tmp_path / name) for name in "ab"]
    future = write("text", outputs=asked)
    a, b = future.outputs
    assert isinstance(a, DataFuture)
    assert (a.filepath, a.filename, a.tid, a.parent) == (str(tmp_path / "a"), str(tmp_path / "a"), future.tid, future)
    assert b.result(timeout=60).url == str(tmp_path / "b")
    assert b.result() is b.file_obj
    assert b.done()
    assert b.exception() is None
    assert Path(b.result()).read_text() == "text"
    assert "DataFuture" in repr(b)
    assert b.file_obj is not asked[1]
    assert asked[1].local_path is None
    assert read(asked[0]).result(timeout=60) == "text"


def test_a_chain_of_apps_through_files(tmp_path: Path) -> None:
    first = [write(f"{n}\n", outputs=[File(tmp_path / f"{n}")]).outputs[0] for n in range(3)]
    joined = concatenate(inputs=first, outputs=[File(tmp_path / "joined")]).outputs[0]
    again = concatenate(inputs=[joined, joined], outputs=[File(tmp_path / "again")]).outputs[0]
    assert read(again).result(timeout=60) == "0\n1\n2\n" * 2
    assert read(inputs=[again]).result(timeout=60) == "0\n1\n2\n" * 2
    assert python_app(lambda box: Path(box["file"][0]).stat().st_size)({"file": [again]}).result(timeout=60) == 12


def test_a_consumer_waits_for_its_file(tmp_path: Path) -> None:
    @python_app
    def late(gate: str, outputs: Any) -> None:
        hold.__wrapped__(gate)
        Path(outputs[0]).write_text("late")

    made = late(str(tmp_path / "gate"), outputs=[File(tmp_path / "late")]).outputs[0]
    readers = [read(made), read(inputs=[made]), python_app(lambda x: Path(x[0]).read_text())([made])]
    joined = join_app(read)(made)
    assert not any(reader.done() for reader in readers)
    (tmp_path / "gate").touch()
    assert [reader.result(timeout=60) for reader in [*readers, joined]] == ["late"] * 4


def test_a_python_app_need_not_make_its_outputs(tmp_path: Path) -> None:
    future = python_app(lambda outputs: "done")(outputs=[File(tmp_path / "nothing")])
    assert future.result(timeout=60) == "done"
    assert future.outputs[0].result(timeout=60).filepath == str(tmp_path / "nothing")


def test_waiting_and_callbacks(tmp_path: Path) -> None:
    futures = [write("x", outputs=[File(tmp_path / str(n))]).outputs[0] for n in range(5)]
    done, rest = concurrent.futures.wait(futures, timeout=60)
    assert (len(done), rest) == (5, set())
    called: list[Any] = []
    futures[0].add_done_callback(called.append)
    assert called == [futures[0]]


def test_cancelling_the_maker(tmp_path: Path) -> None:
    blocked = hold(str(tmp_path / "gate"))
    future = python_app(lambda x, outputs: x)(blocked, outputs=[File(tmp_path / "a")])
    assert future.outputs[0].cancel()
    assert future.cancelled()
    soon(future.outputs[0].cancelled)
    with pytest.raises(DependencyError, match="CancelledError"):
        read(future.outputs[0]).result(timeout=60)
    (tmp_path / "gate").touch()
    blocked.result(timeout=60)


# -- patterns --


@python_app
def scatter(folder: str, count: int, outputs: Any = ()) -> str:
    for n in range(count):
        (Path(folder) / f"part-{n}.txt").write_text(str(n))
    return str(outputs[0])


def test_a_pattern_becomes_the_list_of_its_files(tmp_path: Path) -> None:
    pattern = File(tmp_path / "part-?.txt")
    future = scatter(str(tmp_path), 3, outputs=[pattern, File(tmp_path / "part-1.txt"), File(tmp_path / "*.none")])
    assert future.result(timeout=60) == str(tmp_path / "part-?.txt")
    parts, one, none = future.outputs
    assert [file.filename for file in parts.result(timeout=60)] == [f"part-{n}.txt" for n in range(3)]
    assert all(isinstance(file, File) for file in parts.result())
    assert one.result(timeout=60).filename == "part-1.txt"
    assert none.result(timeout=60) == []
    assert (parts.filepath, parts.tid) == (str(tmp_path / "part-?.txt"), future.tid)


@pytest.mark.parametrize("cached", [False, True])
def test_a_pattern_as_an_argument(tmp_path: Path, cached: bool) -> None:
    app = python_app(cache=cached)(names.__wrapped__)
    parts = scatter(str(tmp_path), 3, outputs=[File(tmp_path / "part-*")]).outputs[0]
    expected = [f"part-{n}.txt" for n in range(3)]
    assert app(parts).result(timeout=60) == expected
    assert python_app(lambda x: [len(files) for files in x])([parts]).result(timeout=60) == [3]
    assert join_app(lambda files: [read(file) for file in files])(parts).result(timeout=60) == ["0", "1", "2"]


def test_a_pattern_after_the_engine_has_ended(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make_engine(inline=True)
    app = python_app(scatter.__wrapped__, data_flow_kernel=engine)
    futures = [app(str(tmp_path), 2, outputs=[File(tmp_path / "part-*")]).outputs[0] for _ in range(20)]
    engine.close()
    assert [len(future.result(timeout=60)) for future in futures] == [2] * 20


def test_a_pattern_of_a_call_that_fails(tmp_path: Path) -> None:
    parts = scatter(str(tmp_path / "missing"), 1, outputs=[File(tmp_path / "part-*")]).outputs[0]
    assert isinstance(parts.exception(timeout=60), FileNotFoundError)
    with pytest.raises(DependencyError, match=rf"because task {parts.tid} \(scatter\) failed: FileNotFoundError"):
        names(parts).result(timeout=60)


# -- failed makers --


def test_failed_makers(tmp_path: Path) -> None:
    absent = File(tmp_path / "a")
    failures: list[tuple[Any, type[BaseException]]] = [
        (python_app(lambda outputs: 1 / 0)(outputs=[absent]), ZeroDivisionError),
        (bash_app(lambda outputs: "exit 3")(outputs=[absent]), BashExitFailure),
        (bash_app(lambda outputs: "true")(outputs=[absent]), MissingOutputs),
    ]
    for maker, kind in failures:
        made = maker.outputs[0]
        assert isinstance(made.exception(timeout=60), kind)
        for consumer in (read(made), read(inputs=[made]), concatenate(inputs=[made], outputs=[File(tmp_path / "b")])):
            with pytest.raises(DependencyError) as caught:
                consumer.result(timeout=60)
            assert isinstance(caught.value.__cause__, kind)
            assert (caught.value.cause, caught.value.via) == (maker.tid, maker.tid)
    assert not (tmp_path / "b").exists()


# -- transfers --


def test_files_from_the_web(web: Web, engine: Engine) -> None:
    url = web.give("hello.txt", "hello")
    file = File(url)
    assert read(file).result(timeout=60) == "hello"
    assert read(inputs=[File(url)]).result(timeout=60) == "hello"
    assert file.local_path is None
    where = python_app(lambda f: f.filepath)(File(url)).result(timeout=60)
    assert Path(where).is_absolute()
    assert Path(where).parent == Path(kernel_of(engine).run_dir) / "files"


def test_a_file_that_is_there_twice_is_brought_once(web: Web) -> None:
    file, others = File(web.give("twice.txt", "2")), [File(web.give("thrice.txt", "3"))] * 2
    assert read(file, file, inputs=[file, File(file.url), *others]).result(timeout=60) == ["2"] * 4 + ["3"] * 2
    assert dict(web.requests) == {"/twice.txt": 1, "/thrice.txt": 1}


def test_the_callers_lists_stay_as_they_are(web: Web) -> None:
    inputs = [File(web.give("list.txt", "x"))]
    before = [*inputs]
    assert read(inputs=inputs).result(timeout=60) == "x"
    assert inputs == before
    assert inputs[0].local_path is None


def test_remote_files_of_calls_that_wait_here(web: Web) -> None:
    """A memoised call and a join need the values of their arguments at the root: no thread may wait for a transfer."""
    remembered = python_app(lambda inputs: open(inputs[0]).read(), cache=True)  # noqa: PTH123, SIM115
    url = web.give("cached.txt", "cached")
    assert remembered(inputs=[File(url)]).result(timeout=60) == "cached"
    assert remembered(inputs=[File(url)]).result(timeout=60) == "cached"
    assert join_app(lambda inputs: read(inputs[0]))(inputs=[File(url)]).result(timeout=60) == "cached"


def test_a_default_in_the_signature(web: Web) -> None:
    source = File(web.give("default.txt", "default"))

    @python_app
    def reads(file: Any = source) -> str:
        return open(file).read()  # type: ignore[no-any-return] # noqa: PTH123

    assert reads().result(timeout=60) == "default"
    assert reads(File(web.give("given.txt", "given"))).result(timeout=60) == "given"


def test_a_transfer_that_fails(web: Web) -> None:
    url = web.give("there.txt", "x").replace("there", "missing")
    with pytest.raises(DependencyError, match="StagingError") as caught:
        read(File(url)).result(timeout=60)
    assert isinstance(caught.value.__cause__, StagingError)


def test_files_that_nobody_can_move() -> None:
    with pytest.raises(ValueError, match="no staging provider for nonsense://host/a"):
        read(File("nonsense://host/a"))
    with pytest.raises(ValueError, match="no staging provider"):
        write("x", outputs=[File("http://127.0.0.1:1/a")])


def test_zip_archives(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    future = write("zipped", outputs=[File(f"zip:{archive}/in/a.txt")])
    assert future.outputs[0].result(timeout=60).scheme == "zip"
    with zipfile.ZipFile(archive) as opened:
        assert opened.read("in/a.txt") == b"zipped"
    assert read(future.outputs[0]).result(timeout=60) == "zipped"
    assert read(File(f"zip:{archive}/in/a.txt")).result(timeout=60) == "zipped"
    second = write("more", outputs=[File(f"zip:{archive}/b.txt")]).outputs[0]
    assert read(second).result(timeout=60) == "more"
    out = bash_app(lambda stdout: "echo said")(stdout=File(f"zip:{archive}/out.txt"))
    assert out.stdout.result(timeout=60).scheme == "zip"
    with zipfile.ZipFile(archive) as opened:
        assert sorted(opened.namelist()) == ["b.txt", "in/a.txt", "out.txt"]
        assert opened.read("out.txt") == b"said\n"


def test_an_output_of_a_failed_call_is_not_moved(tmp_path: Path) -> None:
    archive = tmp_path / "none.zip"
    future = python_app(lambda outputs: 1 / 0)(outputs=[File(f"zip:{archive}/a")])
    with pytest.raises(DependencyError, match="ZeroDivisionError"):
        future.outputs[0].result(timeout=60)
    assert isinstance(future.exception(), ZeroDivisionError)
    assert not archive.exists()


class Tracing(Staging):
    """Moves nothing; wraps the task of files of its scheme."""

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "trace"

    can_stage_out = can_stage_in

    def stage_in(self, dm: Any, executor: str, file: File, parent_fut: Any) -> None:
        file.local_path = f"/in{file.path}"

    def stage_out(self, dm: Any, executor: str, file: File, app_fu: Any) -> None:
        file.local_path = f"/out{file.path}"

    def replace_task(self, dm: Any, executor: str, file: File, func: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(_wrapped, func, f"in {file.path}")

    def replace_task_stage_out(
        self, dm: Any, executor: str, file: File, func: Callable[..., Any]
    ) -> Callable[..., Any]:
        return functools.partial(_wrapped, func, f"out {file.path}")


def _wrapped(func: Callable[..., Any], note: str, *args: Any, **kwargs: Any) -> Any:
    return [note, *func(*args, **kwargs)]


def test_transfers_inside_the_task(make_engine: Callable[..., Engine], web: Web) -> None:
    engine = make_engine(inline=True)
    kernel_of(engine).staging = [Tracing(), HTTPInTaskStaging()]
    app = python_app(lambda *files, outputs=(): [file.filepath for file in (*files, *outputs)], data_flow_kernel=engine)
    file = File("trace://host/a")
    got = app(file, file, outputs=[File("trace://host/b")]).result(timeout=60)
    assert sorted(got[:2]) == ["in /a", "out /b"]
    assert got[2:] == ["/in/a", "/in/a", "/out/b"]
    text = python_app(lambda file: Path(file).read_text(), data_flow_kernel=engine)
    assert text(File(web.give("in-task.txt", "inside"))).result(timeout=60) == "inside"
