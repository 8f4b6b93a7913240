"""Parts of the face for Parsl, without making it `parsl`: configurations, calls and their errors, small things."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import mpitask
import mpitask.memo
from mpitask.compat.parsl import _pinning, addresses, utils
from mpitask.compat.parsl._ignored import tell_of_ignored
from mpitask.compat.parsl._options import TypeCheckError
from mpitask.compat.parsl._pools import Gate
from mpitask.compat.parsl.app.app import bash_app, join_app, python_app
from mpitask.compat.parsl.app.errors import BadStdStreamFile, RemoteExceptionWrapper, wrap_error
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.data_provider.files import File
from mpitask.compat.parsl.data_provider.staging import Staging
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel, _priority_of, load
from mpitask.compat.parsl.dataflow.memoization import BasicMemoizer, id_for_memo, make_hash
from mpitask.compat.parsl.dataflow.states import FINAL_STATES, States
from mpitask.compat.parsl.errors import ConfigurationError, NoDataFlowKernelError, ParslError
from mpitask.compat.parsl.executors import HighThroughputExecutor, MPIExecutor, ThreadPoolExecutor, WorkQueueExecutor
from mpitask.compat.parsl.executors.errors import InvalidResourceSpecification, UnsupportedFeatureError
from mpitask.compat.parsl.executors.high_throughput.mpi_prefix_composer import complete, compose_all
from mpitask.compat.parsl.jobs.states import JobState, JobStatus
from mpitask.compat.parsl.launchers import SrunLauncher, WrappedLauncher
from mpitask.compat.parsl.providers import LocalProvider, SlurmProvider
from mpitask.compat.parsl.serialize.errors import DeserializationError
from mpitask.compat.parsl.serialize.facade import deserialize, serialize
from mpitask.worker.zygote import COMPAT_VARIABLE


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataFlowKernel]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARSL_WORKER_COUNT", "")  # set by kernels; so that it goes with the test
    with load(Config(executors=[ThreadPoolExecutor()], initialize_logging=False)) as dfk:
        yield dfk


def plain(x: Any = None, inputs: Any = (), outputs: Any = (), stdout: Any = None, walltime: Any = None) -> Any:
    return x


# -- configurations --


def test_defaults() -> None:
    config = Config()
    assert [(executor.label, executor.max_threads) for executor in config.executors] == [("threads", 2)]  # type: ignore[attr-defined]
    assert (config.exit_mode, config.run_dir, config.retries, config.garbage_collect) == ("cleanup", "runinfo", 0, True)
    assert len(vars(config)) == 17


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"executors": [ThreadPoolExecutor(), ThreadPoolExecutor()]}, ConfigurationError, "unique labels.*'threads'"),
        ({"executors": ["threads"]}, TypeCheckError, "executors='threads'"),
        ({"executors": 5}, TypeCheckError, "executors=5"),
        ({"exit_mode": "leave"}, TypeCheckError, "'cleanup', 'skip', 'wait'"),
        ({"retries": "2"}, TypeCheckError, "retries='2' is of type str: give int"),
        ({"retry_handler": 1}, TypeCheckError, "retry_handler"),
        ({"memoizer": True}, TypeCheckError, "give Memoizer or None"),
        ({"usage_tracking": 4}, ConfigurationError, "give 0, 1, 2 or 3"),
        ({"monitoring": "yes"}, TypeCheckError, "monitoring"),
        ({"initialize_logging": "loud"}, TypeCheckError, "initialize_logging"),
        ({"app_cash": True}, TypeError, "app_cash"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Config(**options)


def test_repr_is_an_expression() -> None:
    config = Config(
        executors=[
            HighThroughputExecutor("htex", SlurmProvider("debug", launcher=SrunLauncher(overrides="-c 2"))),
            WorkQueueExecutor(port=50055, provider=LocalProvider()),
            MPIExecutor(max_workers_per_block=3),
            ThreadPoolExecutor(max_threads=None),
        ],
        retries=3,
        run_dir="elsewhere",
    )
    names = {
        kind.__name__: kind
        for kind in (Config, HighThroughputExecutor, WorkQueueExecutor, MPIExecutor, ThreadPoolExecutor)
    }
    import mpitask.compat.parsl.launchers as launchers
    import mpitask.compat.parsl.providers as providers
    from mpitask.compat.parsl.executors.high_throughput.manager_selector import RandomManagerSelector

    names |= vars(launchers) | vars(providers) | {"RandomManagerSelector": RandomManagerSelector}
    again = eval(repr(config), names)
    assert repr(again) == repr(config)
    assert again.executors[0].provider.launcher.overrides == "-c 2"


def test_options_without_effect_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    config = Config(
        executors=[
            HighThroughputExecutor("a", worker_port=1, max_workers_per_node=2, provider=LocalProvider(worker_init="x")),
            WorkQueueExecutor("b", port=1),
            ThreadPoolExecutor("c", max_threads=5),
        ],
        strategy="htex_auto_scale",
        retries=2,
        usage_tracking=1,
    )
    for _ in range(3):
        tell_of_ignored(config)
    assert [record.message for record in caplog.records] == [
        "mpitask runs the tasks, and these options have no effect: Config: strategy; "
        "HighThroughputExecutor 'a': provider.worker_init, worker_port; WorkQueueExecutor 'b': port"
    ]
    caplog.clear()
    tell_of_ignored(Config(executors=[HighThroughputExecutor(cores_per_worker=2)], strategy="none", run_dir="x"))
    assert not caplog.records


def test_how_many_workers() -> None:
    assert HighThroughputExecutor().wanted_workers(8) == 8
    assert HighThroughputExecutor(cores_per_worker=3).wanted_workers(8) == 2
    assert HighThroughputExecutor(max_workers_per_node=4).wanted_workers(8) == 4
    assert HighThroughputExecutor(max_workers_per_node=4).wanted_workers(2) == 2
    assert HighThroughputExecutor(available_accelerators=3).wanted_workers(8) == 3
    assert HighThroughputExecutor(available_accelerators=["a"], cores_per_worker=0.1).wanted_workers(8) == 1
    assert HighThroughputExecutor(mem_per_worker=1e6).wanted_workers(8) == 1
    assert HighThroughputExecutor(cores_per_worker=0).wanted_workers(8) == 8
    assert MPIExecutor(max_workers_per_block=5).wanted_workers(2) == 5
    assert WorkQueueExecutor().wanted_workers(2) == 2


# -- calls --


def test_no_kernel() -> None:
    with pytest.raises(NoDataFlowKernelError, match="Must first load config"):
        python_app(plain)(1)
    assert NoDataFlowKernelError is mpitask.NoEngineError
    assert ParslError is mpitask.MpitaskError


@pytest.mark.parametrize("decorator", [python_app, bash_app, join_app])
def test_wrong_apps(decorator: Any) -> None:
    with pytest.raises(TypeCheckError):
        decorator(5)
    with pytest.raises(TypeCheckError):
        decorator(cache="yes")
    with pytest.raises(TypeCheckError):
        decorator(data_flow_kernel="default")
    with pytest.raises(TypeCheckError):
        decorator(ignore_for_cache="x")
    if decorator is not join_app:
        with pytest.raises(TypeCheckError):
            decorator(executors="threads")
        with pytest.raises(TypeCheckError):
            decorator(executors=[1])


def test_a_wrong_configuration_is_not_loaded() -> None:
    with pytest.raises(TypeCheckError):
        load({"executors": []})  # type: ignore[arg-type]
    with pytest.raises(NoDataFlowKernelError):
        python_app(plain)(1)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"inputs": None}, TypeError),
        ({"outputs": None}, TypeError),
        ({"outputs": ["a"]}, (TypeError, AttributeError)),
        ({"stdout": ["a", "w"]}, TypeCheckError),
        ({"stdout": 5}, TypeCheckError),
        ({"stdout": ("a", "w", 1)}, TypeCheckError),
        ({"stdout": ("a", None)}, TypeCheckError),
        ({"inputs": [File("nothing:/x")]}, ValueError),
    ],
)
def test_calls_that_cannot_be_made(kernel: DataFlowKernel, kwargs: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        python_app(plain)(**kwargs)


def test_failures_that_are_told_by_the_future(kernel: DataFlowKernel) -> None:
    with pytest.raises(IndexError):
        python_app(executors=[])(plain)(1)
    invalid = python_app(executors=["nowhere"])(plain)(1)
    assert str(invalid.exception()) == f"Task {invalid.tid} requested invalid executor nowhere"
    assert isinstance(invalid.exception(), ValueError)
    assert isinstance(python_app(plain)(label="x").exception(), TypeError)
    bad = bash_app(lambda stdout: "true")(stdout="/proc/nowhere/x")
    assert isinstance(bad.exception(), BadStdStreamFile)
    refused = python_app(lambda parsl_resource_specification: 1)(parsl_resource_specification={"cores": 1})
    assert isinstance(refused.exception(), InvalidResourceSpecification)


def test_an_invalid_executor_waits_for_what_it_needs(kernel: DataFlowKernel) -> None:
    source: Future[int] = Future()
    invalid = python_app(executors=["nowhere"])(plain)(source)
    assert not invalid.done()
    source.set_result(1)
    assert isinstance(invalid.exception(20), ValueError)


def test_threads_get_the_very_objects(kernel: DataFlowKernel) -> None:
    lock = threading.Lock()
    first = python_app(plain)(lock)
    assert first.result() is lock
    assert python_app(plain)(first).result() is lock
    assert python_app(plain)(inputs=[first], x=[first]).result()[0] is lock


def test_cancelled_calls_are_no_longer_tasks(kernel: DataFlowKernel) -> None:
    source: Future[int] = Future()
    waiting = python_app(plain)(source)
    assert waiting.cancel()
    assert waiting.task_status() == "cancelled"
    kernel.wait_for_current_tasks()
    assert kernel.task_state_counts[States.cancelled] == 1
    source.set_result(1)


def test_methods_and_pickles(kernel: DataFlowKernel) -> None:
    class Holder:
        factor = 3

        @python_app
        def times(self, x: int) -> int:
            return self.factor * x

    assert Holder().times(2).result() == 6
    app = pickle.loads(pickle.dumps(python_app(len, cache=True, executors=["threads"])))
    assert (app([1, 2]).result(), app.cache, app.executors, repr(app)) == (2, True, ["threads"], "<PythonApp 'len'>")
    assert pickle.loads(pickle.dumps(join_app(len))).join


def test_defaults_that_are_hidden_by_arguments(kernel: DataFlowKernel) -> None:
    @python_app
    def app(x: int, inputs: Any = (1, 2), *, walltime: Any = 60) -> Any:
        return x, inputs, walltime

    assert app(1).result() == (1, [1, 2], 60)
    assert app(1, (3,), walltime=5).result() == (1, (3,), 5)


def test_two_kernels_on_a_running_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = mpitask.python_app(abs)
    with mpitask.load(inline=True) as engine:
        kernels = [DataFlowKernel(Config(executors=[HighThroughputExecutor()], run_dir=name)) for name in ("a", "b")]
        assert all(kernel.engine is engine for kernel in kernels)
        results = [python_app(plain, data_flow_kernel=kernel)(i) for i, kernel in enumerate(kernels)]
        assert [result.result() for result in results] == [0, 1]
        kernels[0].cleanup()
        with pytest.raises(NoDataFlowKernelError, match="cleaned up"):
            python_app(plain, data_flow_kernel=kernels[0])(1)
        assert python_app(plain, data_flow_kernel=kernels[1])(5).result() == 5
        assert own(-1).result() == 1
        kernels[1].cleanup()
        assert mpitask.current() is engine
        assert own(-2).result() == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_priorities() -> None:
    order = sorted([None, 3, 0, 1.6, 10**12, -5], key=lambda p: -_priority_of({} if p is None else {"priority": p}))
    assert order[-1] is None
    assert order.index(1.6) < order.index(3) < order.index(10**12)


def test_a_gate_lets_through_what_it_should() -> None:
    with mpitask.load(workers=2) as engine:
        gate = Gate(engine, 1)
        futures = [gate.submit(divmod, 7, i) for i in range(3)]
        refused = gate.submit(len, threading.Lock())
        waiting = [gate.submit(abs, -1) for _ in range(20)]
        cancelled = waiting[-1].cancel()
        assert isinstance(futures[0].exception(), ZeroDivisionError)
        assert [future.result() for future in futures[1:]] == [(7, 0), (3, 1)]
        assert isinstance(refused.exception(), mpitask.SerializationError)
        assert {future.result() for future in waiting[: 19 if cancelled else 20]} == {1}


# -- small things --


def test_states() -> None:
    assert States.exec_done == "exec_done"
    assert {"exec_done": 1}[States.exec_done] == 1  # counts are kept by name
    assert States.memo_done in FINAL_STATES
    assert States.pending not in FINAL_STATES
    assert States["launched"].name == "launched"


def test_wrapped_errors() -> None:
    wrapped = pickle.loads(pickle.dumps(wrap_error(len)(5)))
    assert isinstance(wrapped, RemoteExceptionWrapper)
    assert wrapped.e_type is TypeError
    with pytest.raises(TypeError, match="no len"):
        wrapped.reraise()
    assert wrap_error(len)([1]) == 1


def test_errors_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(InvalidResourceSpecification({"cores"}, "no cores")))
    assert (error.invalid_keys, str(error)) == ({"cores"}, "invalid resource specification ('cores'). no cores")
    again = pickle.loads(pickle.dumps(UnsupportedFeatureError("walltime", "a", "b")))
    assert str(again) == "walltime is not supported by a; b has it"


@pytest.mark.parametrize(
    ("spec", "numbers"),
    [
        ({"num_nodes": 2, "ranks_per_node": 4}, (2, 8, 4)),
        ({"num_nodes": 2, "num_ranks": 8}, (2, 8, 4)),
        ({"num_ranks": 3}, (1, 3, 3)),
        ({"num_nodes": 3, "num_ranks": 4}, (3, 4, 2)),
        ({"num_nodes": "2", "ranks_per_node": "1"}, (2, 2, 1)),
    ],
)
def test_mpi_specifications(spec: dict[str, Any], numbers: tuple[int, int, int]) -> None:
    done = complete(spec)
    assert (done["num_nodes"], done["num_ranks"], done["ranks_per_node"]) == numbers


@pytest.mark.parametrize(
    "spec", [{}, {"nodes": 1}, {"num_nodes": "many"}, {"num_nodes": 1, "num_ranks": 8, "ranks_per_node": 2}]
)
def test_wrong_mpi_specifications(spec: dict[str, Any]) -> None:
    with pytest.raises(InvalidResourceSpecification):
        MPIExecutor().validate_resource_spec(spec)


def test_mpi_prefixes() -> None:
    spec = {"num_nodes": 2, "ranks_per_node": 3, "launcher_options": "--verbose"}
    found = compose_all("srun", spec, ["n1", "n2"])
    assert found["PARSL_MPI_PREFIX"] == found["PARSL_SRUN_PREFIX"]
    assert found["PARSL_SRUN_PREFIX"].split() == [
        *("srun", "--ntasks", "6", "--ntasks-per-node", "3", "--nodes", "2", "--nodelist", "n1,n2", "--verbose")
    ]
    assert found["PARSL_MPIEXEC_PREFIX"] == "mpiexec -n 6 -ppn 3 -hosts n1,n2 --verbose"
    with pytest.raises(ValueError, match="mpi_launcher='jsrun'"):
        MPIExecutor(mpi_launcher="jsrun")


@pytest.mark.parametrize(
    ("spec", "good"), [({"cores": 1, "memory": 1, "disk": 1}, True), ({"cores": 1}, False), ({"cpus": 1}, False)]
)
def test_work_queue_specifications(spec: dict[str, int], good: bool) -> None:
    if good:
        WorkQueueExecutor().validate_resource_spec(spec)
    else:
        with pytest.raises(InvalidResourceSpecification):
            WorkQueueExecutor().validate_resource_spec(spec)


def test_providers_start_nothing() -> None:
    with pytest.raises(NotImplementedError, match="srun python -m mpitask --parsl"):
        SlurmProvider().submit("command", 1)
    assert (SlurmProvider().label, LocalProvider().nodes_per_block) == ("slurm", 1)
    assert SrunLauncher(overrides="-c 2")("x", 2, 3) == "srun --ntasks=6 --nodes=3 -c 2 x"
    assert WrappedLauncher("docker run")("x", 1, 1) == "docker run x"


def test_helpers(tmp_path: Path) -> None:
    assert utils.get_std_fname_mode("stdout", "a") == ("a", "a+")
    assert utils.get_std_fname_mode("stdout", (Path("a"), "w")) == ("a", "w")
    with pytest.raises(BadStdStreamFile):
        utils.get_std_fname_mode("stdout", ("a", "w", "x"))  # type: ignore[arg-type]
    assert [utils.wtime_to_minutes(text) for text in ("01:02:00", "00:00:10", "00:01:30")] == [62, 1, 2]
    assert utils.sanitize_dns_label_rfc1123("--My_Job..1--") == "my-job-1"
    assert utils.execute_wait("echo a; echo b >&2; exit 3") == (3, "a\n", "b\n")
    (tmp_path / "x").write_text("text")
    with utils.time_limited_open(str(tmp_path / "x"), "r") as file:
        assert file.read() == "text"
    assert addresses.address_by_interface("lo") == "127.0.0.1"
    assert "127.0.0.1" in addresses.get_all_addresses()
    with pytest.raises(ConfigurationError, match=r"there are: .*lo"):
        addresses.address_by_interface("nosuch0")
    assert addresses.tcp_url("::1", 5) == "tcp://[::1]:5"


def test_timers() -> None:
    rung = threading.Event()
    timer = utils.Timer(rung.set, interval=0.01)
    assert rung.wait(60)
    timer.close()
    with utils.AutoCancelTimer(60, rung.clear):
        pass
    assert rung.is_set()


def test_job_states(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("x" * 5000)
    status = JobStatus(JobState.FAILED, "why", stdout_path=str(path), stderr_path=str(tmp_path / "none"))
    assert (status.terminal, str(status), status.stderr) == (True, "JobState.FAILED (why)", None)
    assert len(status.stdout_summary or "") == 2048 + len("\n...\n")


def test_bytes() -> None:
    def closure(x: int, add: Callable[[int], int] = lambda x: x + 1) -> int:
        return add(x)

    assert deserialize(serialize(closure))(1) == 2
    with pytest.raises(DeserializationError):
        deserialize(b"nothing")


def test_loggers_can_be_taken_back(tmp_path: Path) -> None:
    from mpitask.compat.parsl.log_utils import set_file_logger

    end = set_file_logger(str(tmp_path / "log"), name="parsl.test")
    logging.getLogger("parsl.test").info("heard")
    end()
    logging.getLogger("parsl.test").info("not heard")
    assert "not heard" not in (tmp_path / "log").read_text()
    assert "heard" in (tmp_path / "log").read_text()


# -- promises beyond the engine's --


def test_errors_of_a_chain_nest(kernel: DataFlowKernel) -> None:
    first = python_app(divmod)(1, 0)
    last = python_app(plain)(python_app(plain)(first)).exception()
    assert isinstance(last, mpitask.DependencyError)
    ((inner, name),) = last.dependent_exceptions_tids
    assert isinstance(inner, mpitask.DependencyError)
    assert name.startswith("task ")
    assert last.__cause__ is first.exception()
    again = pickle.loads(pickle.dumps(last))
    assert [type(error) for error, _ in again.dependent_exceptions_tids] == [type(inner)]
    source: Future[int] = Future()
    waiting = python_app(plain)(source)
    source.set_exception(ValueError("of its own"))
    assert repr(source) in str(waiting.exception())


def test_exits_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config(executors=[HighThroughputExecutor(max_workers_per_node=1)], initialize_logging=False)
    with DataFlowKernel(config) as dfk:
        error = python_app(sys.exit, data_flow_kernel=dfk)(3).exception()
    assert isinstance(error, mpitask.WorkerLost)
    assert error.exit_status == 3


def test_checkpoints_are_rows_of_pickles(tmp_path: Path) -> None:
    memoizer = BasicMemoizer(checkpoint_mode="manual")
    with load(Config(memoizer=memoizer, run_dir=str(tmp_path), initialize_logging=False)) as dfk:
        assert python_app(abs, cache=True)(-5).result() == 5
        path = Path(dfk.run_dir) / "checkpoint" / "tasks.pkl"
        assert not path.exists()
        memoizer.checkpoint()
        record = pickle.loads(path.read_bytes())
    assert (set(record), record["result"]) == ({"hash", "exception", "result"}, 5)
    assert mpitask.memo.load_checkpoints(path) == {record["hash"]: 5}


def test_identities_as_text() -> None:
    class Mesh:
        name = "m"

    @id_for_memo.register(Mesh)
    def identity(mesh: Mesh, output_ref: bool = False) -> str:
        return mesh.name

    assert id_for_memo.dispatch(Mesh)(Mesh()) == b"m"
    key = make_hash({"func": abs, "args": [Mesh()], "kwargs": {}})
    assert key == make_hash({"func": abs, "args": [Mesh()], "kwargs": {}})


def test_older_options() -> None:
    config = Config(app_cache=False, checkpoint_mode="task_exit")
    assert isinstance(config.memoizer, BasicMemoizer)
    assert (config.memoizer.memoize, config.memoizer.checkpoint_mode) == (False, "task_exit")
    assert HighThroughputExecutor(max_workers=3).max_workers_per_node == 3
    with pytest.raises(TypeError, match="'nothing'"):
        Config(nothing=1)
    with pytest.raises(ConfigurationError, match="give one"):
        Config(app_cache=True, memoizer=BasicMemoizer())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("block", [{4, 5, 6}, {7, 8, 9}]),
        ("block-reverse", [{10, 9, 8}, {7, 6, 5}]),
        ("alternating", [{4, 6, 8, 10}, {5, 7, 9}]),
        ("list:0-2:5,7", [{0, 1, 2}, {5, 7}]),
    ],
)
def test_cores_of_workers(spec: str, expected: list[set[int]]) -> None:
    assert [_pinning.cores_of(spec, i, 2, list(range(4, 11))) for i in range(2)] == expected


@pytest.mark.parametrize("spec", ["list", "some", "list:a", "block"])
def test_wrong_cores_of_workers(spec: str) -> None:
    with pytest.raises(ValueError, match=r"give|cores|invalid"):
        _pinning.cores_of(spec, 0, 3, [1, 2] if spec == "block" else [1, 2, 3])


def test_accelerators_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(COMPAT_VARIABLE, "mpitask.compat.parsl")
    executor = HighThroughputExecutor(max_workers_per_node=1, available_accelerators=["gpu-7"])
    with DataFlowKernel(Config(executors=[executor], initialize_logging=False)) as dfk:
        assert python_app(os.getenv, data_flow_kernel=dfk)("CUDA_VISIBLE_DEVICES").result() == "gpu-7"
    monkeypatch.delenv(_pinning.ACCELERATORS)


class Moving(Staging):
    """Moves files with a path of this machine."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def can_stage_in(self, file: File) -> bool:
        return file.scheme == "file"

    can_stage_out = can_stage_in

    def stage_in(self, dm: Any, executor: str, file: File, parent_fut: Any) -> None:
        self.seen.append(f"in {file.filename} {executor}")

    def stage_out(self, dm: Any, executor: str, file: File, app_fu: Any) -> None:
        self.seen.append(f"out {file.filename} {executor}")


def test_providers_are_asked_about_local_files(tmp_path: Path) -> None:
    provider = Moving()
    config = Config(executors=[ThreadPoolExecutor(storage_access=[provider])], initialize_logging=False)
    config.run_dir = str(tmp_path)
    with DataFlowKernel(config) as dfk:
        call = python_app(plain, data_flow_kernel=dfk)(1, inputs=[File("a")], outputs=[File("b")])
        call.exception()
    assert sorted(provider.seen) == ["in a threads", "out b threads"]
