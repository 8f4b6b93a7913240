"""Parts of the face for Parsl, without making it `parsl`: configurations and small things."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpitask.compat.parsl import _pinning, addresses, utils
from mpitask.compat.parsl._ignored import tell_of_ignored
from mpitask.compat.parsl._options import TypeCheckError
from mpitask.compat.parsl.app.errors import BadStdStreamFile, RemoteExceptionWrapper, wrap_error
from mpitask.compat.parsl.config import Config
from mpitask.compat.parsl.dataflow.memoization import BasicMemoizer, id_for_memo, make_hash
from mpitask.compat.parsl.dataflow.states import FINAL_STATES, States
from mpitask.compat.parsl.errors import ConfigurationError
from mpitask.compat.parsl.executors import HighThroughputExecutor, MPIExecutor, ThreadPoolExecutor, WorkQueueExecutor
from mpitask.compat.parsl.executors.errors import InvalidResourceSpecification, UnsupportedFeatureError
from mpitask.compat.parsl.executors.high_throughput.mpi_prefix_composer import complete, compose_all
from mpitask.compat.parsl.jobs.states import JobState, JobStatus
from mpitask.compat.parsl.launchers import SrunLauncher, WrappedLauncher
from mpitask.compat.parsl.providers import LocalProvider, SlurmProvider
from mpitask.compat.parsl.serialize.errors import DeserializationError
from mpitask.compat.parsl.serialize.facade import deserialize, serialize

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
