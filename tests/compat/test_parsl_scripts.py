"""Scripts written for Parsl, unchanged. Each file in scripts/ ends with what it prints.

All of them run in one process under plain python, after `install()`; under `python -m mpitask --parsl` some run alone,
as users run them, and the others in one process.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.processes import Launcher

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))
ALONE = {"bash_streams", "hello", "worker_imports"}
TALKATIVE = {
    "map_reduce": "these options have no effect: HighThroughputExecutor 'htex_Local': worker_debug\n",
    "monitoring": "these options have no effect: Config: max_idletime, monitoring; HighThroughputExecutor "
    "'cluster': address, provider, remote_monitoring_radio. In place of SlurmProvider, start the script inside a job: "
    "srun python -m mpitask --parsl script.py\n",
}

DRIVER = """\
import contextlib, io, json, os, runpy, sys, traceback
import mpitask.compat.parsl
mpitask.compat.parsl.install()
import parsl
from mpitask import running

with open("results", "w") as results:
    for path in sys.argv[1:]:
        name = os.path.basename(path)
        os.mkdir(name)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(name), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(path, run_name="__main__")
            except BaseException:
                traceback.print_exc()
            parsl.clear()
            for left in list(running.engines):
                if not left.is_job:
                    left.close(drop=True)
        print(json.dumps([name, out.getvalue(), err.getvalue()]), file=results, flush=True)
"""


def expected(path: Path) -> str:
    return "".join(line[2:] + "\n" for line in path.read_text().partition("# prints:\n")[2].splitlines())


def run_all(paths: list[Path], folder: Path, *, plain: bool) -> dict[str, tuple[str, str]]:
    """What each script printed, to standard output and error; as "", what came besides."""
    launcher = Launcher(folder)
    options = [] if plain else ["--parsl", "--workers", "2"]
    try:
        done = launcher.run(DRIVER, args=[str(path) for path in paths], options=options, plain=plain, timeout_s=200)
    finally:
        left = launcher.close()
        assert not left, f"processes left behind: {left}"
    rows = [json.loads(line) for line in (folder / "results").read_text().splitlines()]
    return {name: (out, err) for name, out, err in rows} | {"": (done.out, done.err)}


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[dict[str, tuple[str, str]]]]]:
    together = [path for path in SCRIPTS if path.stem not in ALONE]
    with ThreadPoolExecutor(2) as pool:
        yield {
            "job": pool.submit(run_all, together, tmp_path_factory.mktemp("job"), plain=False),
            "plain": pool.submit(run_all, SCRIPTS, tmp_path_factory.mktemp("plain"), plain=True),
        }


@pytest.mark.parametrize(
    ("path", "way"),
    [(path, way) for path in SCRIPTS for way in ("job", "plain") if way == "plain" or path.stem not in ALONE],
    ids=lambda value: getattr(value, "stem", value),
)
def test_script(path: Path, way: str, ways: dict[str, Future[dict[str, tuple[str, str]]]]) -> None:
    done = ways[way].result()
    out, err = done.get(path.name, ("", f"it has not run; {done['']}"))
    assert out == expected(path), err
    assert err.endswith(TALKATIVE.get(path.stem, ""))
    assert err.count("\n") == (path.stem in TALKATIVE)


@pytest.mark.writes
@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.stem in ALONE], ids=lambda path: path.stem)
def test_script_alone(path: Path, launcher: Launcher) -> None:
    done = launcher.run(path.read_text(), options=["--parsl", "--workers", "2"])
    assert (done.out, done.err, done.rc) == (expected(path), "", 0)


ENDLESS = """
import parsl, time
from parsl import ThreadPoolExecutor, HighThroughputExecutor, python_app

parsl.load(parsl.Config(executors=[ThreadPoolExecutor(), HighThroughputExecutor(max_workers_per_node=1)]))


@python_app(executors=["threads"])
def in_thread():
    time.sleep(1000)


@python_app(executors=["HighThroughputExecutor"])
def in_worker():
    import time

    time.sleep(1000)


futures = [in_thread(), in_worker()]
while any(future.task_status() != "launched" for future in futures):
    time.sleep(0.01)
print("ready", flush=True)
futures[0].result()
"""


@pytest.mark.writes
@pytest.mark.parametrize("plain", [False, True], ids=["job", "plain"])
def test_an_interrupted_script_ends(launcher: Launcher, plain: bool) -> None:
    source = "import mpitask.compat.parsl as p; p.install()\n" + ENDLESS if plain else ENDLESS
    script = launcher.start(source, plain=plain, options=[] if plain else ["--parsl", "--workers", "1"])
    script.wait_for_output("ready")
    script.signal(signal.SIGINT)
    done = script.finish(20)
    assert done.rc in (130, -signal.SIGINT), done.err
