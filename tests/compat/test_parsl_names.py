"""What scripts import from Parsl is there, under the name `parsl`; what a site puts beside it, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import Launcher

NAMES = """
parsl: bash_app python_app join_app Config DataFlowKernel DataFlowKernelLoader File set_stream_logger set_file_logger
parsl: AUTO_LOGNAME ThreadPoolExecutor HighThroughputExecutor WorkQueueExecutor RadicalPilotExecutor MonitoringHub
parsl: load dfk clear wait_for_current_tasks __version__
parsl.addresses: address_by_hostname address_by_interface address_by_query address_by_route get_all_addresses
parsl.addresses: get_any_address tcp_url
parsl.app.app: AppBase bash_app join_app python_app
parsl.app.bash: BashApp
parsl.app.errors: AppBadFormatting AppException AppTimeout BadStdStreamFile BashAppNoReturn BashExitFailure
parsl.app.errors: MissingOutputs ParslError RemoteExceptionWrapper wrap_error
parsl.app.futures: DataFuture
parsl.app.python: PythonApp timeout
parsl.benchmark.perf: app cli_run load_dfk_from_config performance
parsl.concurrent: ParslPoolExecutor
parsl.config: Config
parsl.configs.htex_local: config
parsl.configs.local_threads: config
parsl.configs.vineex_local: config
parsl.configs.wqex_local: config
parsl.data_provider.data_manager: DataManager default_staging
parsl.data_provider.file_noop: NoOpFileStaging
parsl.data_provider.files: File
parsl.data_provider.ftp: FTPInTaskStaging FTPSeparateTaskStaging
parsl.data_provider.globus: GlobusStaging
parsl.data_provider.http: HTTPInTaskStaging HTTPSeparateTaskStaging
parsl.data_provider.rsync: RSyncStaging
parsl.data_provider.staging: Staging
parsl.data_provider.zip: ZipAuthorityError ZipFileStaging zip_path_split
parsl.dataflow.dependency_resolvers: DEEP_DEPENDENCY_RESOLVER SHALLOW_DEPENDENCY_RESOLVER DependencyResolver
parsl.dataflow.dflow: DataFlowKernel DataFlowKernelLoader
parsl.dataflow.errors: BadCheckpoint DataFlowException DependencyError JoinError PropagatedException
parsl.dataflow.futures: AppFuture
parsl.dataflow.memoization: BasicMemoizer Memoizer id_for_memo make_hash
parsl.dataflow.rundirs: make_rundir
parsl.dataflow.states: FINAL_FAILURE_STATES FINAL_STATES States
parsl.dataflow.taskrecord: TaskRecord
parsl.errors: ConfigurationError InternalConsistencyError NoDataFlowKernelError OptionalModuleMissing ParslError
parsl.executors: FluxExecutor GlobusComputeExecutor HighThroughputExecutor MPIExecutor TaskVineExecutor
parsl.executors: ThreadPoolExecutor WorkQueueExecutor
parsl.executors.base: ParslExecutor
parsl.executors.errors: BadMessage BadStateException ExecutorError InvalidResourceSpecification ScalingFailed
parsl.executors.errors: UnsupportedFeatureError
parsl.executors.flux.executor: FluxExecutor
parsl.executors.globus_compute: GlobusComputeExecutor
parsl.executors.high_throughput.errors: ManagerLost VersionMismatch WorkerLost
parsl.executors.high_throughput.executor: HighThroughputExecutor
parsl.executors.high_throughput.manager_selector: BlockIdManagerSelector ManagerSelector RandomManagerSelector
parsl.executors.high_throughput.mpi_executor: MPIExecutor
parsl.executors.high_throughput.mpi_prefix_composer: VALID_LAUNCHERS compose_all validate_resource_spec
parsl.executors.radical: RadicalPilotExecutor ResourceConfig
parsl.executors.radical.executor: RadicalPilotExecutor
parsl.executors.radical.rpex_resources: ResourceConfig
parsl.executors.status_handling: BlockProviderExecutor
parsl.executors.taskvine: TaskVineExecutor TaskVineFactoryConfig TaskVineManagerConfig
parsl.executors.taskvine.errors: TaskVineFactoryFailure TaskVineManagerFailure TaskVineTaskFailure
parsl.executors.taskvine.executor: TaskVineExecutor
parsl.executors.taskvine.factory_config: TaskVineFactoryConfig
parsl.executors.taskvine.manager_config: TaskVineManagerConfig
parsl.executors.threads: ThreadPoolExecutor
parsl.executors.workqueue.errors: WorkQueueFailure WorkQueueTaskFailure
parsl.executors.workqueue.executor: WorkQueueExecutor
parsl.jobs.error_handlers: noop_error_handler simple_error_handler windowed_error_handler
parsl.jobs.errors: TooManyJobFailuresError
parsl.jobs.states: TERMINAL_STATES JobState JobStatus
parsl.launchers: AprunLauncher GnuParallelLauncher JsrunLauncher MpiExecLauncher MpiRunLauncher SimpleLauncher
parsl.launchers: SingleNodeLauncher SrunLauncher SrunMPILauncher WrappedLauncher
parsl.launchers.base: Launcher
parsl.launchers.errors: BadLauncher
parsl.launchers.launchers: SrunLauncher
parsl.log_utils: set_file_logger set_stream_logger
parsl.logconfigs.base: LogConfig
parsl.logconfigs.file: FileLogging
parsl.logconfigs.json: JSONLogging
parsl.logconfigs.noop: NoopLogging
parsl.monitoring: MonitoringHub
parsl.monitoring.errors: RadioRequiredError
parsl.monitoring.message_type: MessageType
parsl.monitoring.monitoring: MonitoringHub
parsl.monitoring.radios.base: MonitoringRadioReceiver MonitoringRadioSender RadioConfig
parsl.monitoring.radios.filesystem: FilesystemRadio
parsl.monitoring.radios.htex: HTEXRadio
parsl.monitoring.radios.multiprocessing: MultiprocessingQueueRadio
parsl.monitoring.radios.udp: UDPRadio
parsl.process_loggers: wrap_with_logs
parsl.providers: AWSProvider AzureProvider CondorProvider GoogleCloudProvider GridEngineProvider KubernetesProvider
parsl.providers: LSFProvider LocalProvider PBSProProvider SlurmProvider TorqueProvider
parsl.providers.base: ExecutionProvider
parsl.providers.cluster_provider: ClusterProvider
parsl.providers.errors: ExecutionProviderException SchedulerMissingArgs ScriptPathError SubmitException
parsl.providers.slurm.slurm: SlurmProvider
parsl.serialize: deserialize pack_apply_message serialize unpack_apply_message
parsl.serialize.base: SerializerBase
parsl.serialize.concretes: DillCallableSerializer DillSerializer PickleSerializer
parsl.serialize.errors: DeserializationError DeserializerPluginError SerializationError
parsl.serialize.facade: register_method_for_code register_method_for_data
parsl.usage_tracking.api: UsageInformation
parsl.usage_tracking.levels: DISABLED LEVEL_1 LEVEL_2 LEVEL_3
parsl.utils: AtomicIDCounter RepresentationMixin Timer execute_wait get_all_checkpoints get_last_checkpoint
parsl.utils: get_std_fname_mode get_version time_limited_open wait_for_file wtime_to_minutes
parsl.version: VERSION
"""

IMPORT_ALL = """
import importlib, sys
import mpitask.compat.parsl
mpitask.compat.parsl.install()
mpitask.compat.parsl.install()
for line in sys.stdin:
    module, _, names = line.strip().partition(": ")
    if module:
        found = importlib.import_module(module)
        assert "mpitask/compat/parsl" in found.__file__, found
        assert found is importlib.import_module("mpitask.compat." + module)
        for name in names.split():
            exec(f"from {module} import {name}")
print("all")
"""


def python(code: str, *, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def test_all_names(tmp_path: Path) -> None:
    done = python(IMPORT_ALL, cwd=tmp_path, stdin=NAMES)
    assert (done.stdout, done.stderr, done.returncode) == ("all\n", "", 0)
    assert list(tmp_path.iterdir()) == []


def test_submodules_need_not_be_imported_by_name(tmp_path: Path) -> None:
    code = """
import mpitask.compat.parsl as compat
compat.install()
import parsl, pickle
from parsl import *
print(parsl is compat, parsl.dataflow.dflow.DataFlowKernel is DataFlowKernel, AUTO_LOGNAME)
print(parsl.executors.high_throughput.executor.HighThroughputExecutor is HighThroughputExecutor)
print(parsl.providers.slurm.slurm.SlurmProvider().partition, parsl.utils.get_version() == parsl.__version__)
for wrong in ("parsl.nothing", "parsl.dataflow.nothing"):
    try:
        eval(wrong)
    except AttributeError as error:
        print(error)
try:
    from parsl.dataflow import nothing
except ImportError:
    print("ImportError")
print(pickle.loads(pickle.dumps(parsl.executors.ThreadPoolExecutor)) is ThreadPoolExecutor)
import mpitask, mpitask.memo
print(parsl.app.errors.BashExitFailure is mpitask.BashExitFailure, parsl.File is mpitask.File)
print(parsl.dataflow.memoization.id_for_memo.registry is mpitask.memo.id_for_memo.registry)
"""
    done = python(code, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "True True -1",
        "True",
        "None True",
        "module 'mpitask.compat.parsl' has no attribute 'nothing'",
        "module 'mpitask.compat.parsl.dataflow' has no attribute 'nothing'",
        "ImportError",
        "True",
        "True True",
        "True",
    ], done.stderr


def test_another_parsl_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "parsl.py").write_text("")
    done = python("import parsl, mpitask.compat.parsl as p; p.install()", cwd=tmp_path)
    assert "ConfigurationError: parsl has been imported already" in done.stderr


def test_installing_is_light(tmp_path: Path) -> None:
    code = "import sys, mpitask.compat.parsl as p; p.install(); import parsl; print(*sys.modules)"
    loaded = set(python(code, cwd=tmp_path).stdout.split())
    assert not {"mpitask.engine", "numpy", "mpi4py", "mpitask.compat.parsl.config"} & loaded


SITE = {
    "parsl/configs/mysite.py": """
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor

        config = Config(executors=[HighThroughputExecutor(label="site", max_workers_per_node=1)])
    """,
    "parsl/sitetools/__init__.py": "",
    "parsl/sitetools/work.py": """
        import parsl
        from parsl.configs import mysite

        def where():
            import os
            return os.getpid(), mysite.config.executors[0].label, parsl.__name__, __name__
    """,
}

SITE_SCRIPT = """
import os
import sys

sys.path.insert(0, os.path.abspath("site"))
import parsl
from parsl.configs import mysite
from parsl.configs.mysite import config
from parsl.sitetools.work import where
import parsl.sitetools.work as again

assert mysite is sys.modules["parsl.configs.mysite"] and again.where is where and mysite.config is config
parsl.load(config)
result = parsl.python_app(where)().result()
print(result[0] != os.getpid(), result[1:])


@parsl.python_app
def by_name():
    import parsl.configs.mysite
    from parsl.configs.htex_local import config

    return parsl.configs.mysite.config.executors[0].label, config.executors[0].label


print(by_name().result())
parsl.dfk().cleanup()
"""

SITE_OUTPUT = """\
True ('site', 'mpitask.compat.parsl', 'parsl.sitetools.work')
('site', 'htex_local')
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    import textwrap

    for name, text in SITE.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path / "site"


@pytest.mark.writes
@pytest.mark.usefixtures("site")
def test_a_sites_own_modules(launcher: Launcher) -> None:
    """Made known to this process only, before the engine of a kernel starts."""
    done = launcher.run("import mpitask.compat.parsl as p; p.install()\n" + SITE_SCRIPT, plain=True)
    assert (done.out, done.rc) == (SITE_OUTPUT, 0), done.err


@pytest.mark.writes
def test_a_sites_own_modules_in_a_job(site: Path, launcher: Launcher) -> None:
    """In the environment, for the workers of a job start before the script does."""
    done = launcher.run(SITE_SCRIPT, options=["--parsl", "--workers", "1"], env={"PYTHONPATH": str(site)})
    assert (done.out, done.rc) == (SITE_OUTPUT, 0), done.err


@pytest.mark.writes
def test_over_mpi(launcher: Launcher, mpich: object) -> None:
    source = (Path(__file__).parent / "scripts" / "worker_imports.py").read_text()
    done = launcher.run(source, n=2, mpi=mpich, options=["--parsl", "--workers", "1"])
    assert done.out.splitlines()[1:] == ["True True", "2", "4"], done.err
