"""`parsl.executors.high_throughput.mpi_executor`: tasks that start MPI programs.

A task finds `$PARSL_MPI_PREFIX` (`mpiexec -n 4 -ppn 2 …`) in its environment, made of its
`parsl_resource_specification`. Nodes are named in it where the batch system names them; they are not reserved: no
more than `max_workers_per_block` tasks run at a time, and each gets the first nodes of the job.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mpitask.compat.parsl._options import keep, refuse_unknown
from mpitask.compat.parsl.executors._engine import EngineExecutor
from mpitask.compat.parsl.executors.high_throughput import mpi_prefix_composer
from mpitask.compat.parsl.executors.high_throughput.executor import HighThroughputExecutor
from mpitask.compat.parsl.launchers import SimpleLauncher
from mpitask.compat.parsl.providers.local.local import LocalProvider


class MPIExecutor(HighThroughputExecutor):
    """Runs tasks that start MPI programs.

    What has an effect: `label`, `storage_access`, `working_dir`, `max_workers_per_block` (how many tasks run at a time)
    and `mpi_launcher` ("mpiexec", "srun" or "aprun": what $PARSL_MPI_PREFIX begins with).

    Raises:
        TypeError: the provider has a launcher other than SimpleLauncher: the tasks start the ranks.
        ValueError: `mpi_launcher` is not known.
    """

    meant: ClassVar[frozenset[str]] = frozenset({"max_workers_per_block", "mpi_launcher"})
    resource_keys: ClassVar[frozenset[str]] = frozenset(
        {"num_nodes", "num_ranks", "ranks_per_node", "launcher_options"}
    )

    max_workers_per_block: int
    mpi_launcher: str

    def __init__(  # noqa: PLR0917 - as Parsl has it
        self,
        label: str = "MPIExecutor",
        provider: Any = None,
        launch_cmd: str | None = None,
        interchange_launch_cmd: str | None = None,
        address: str | None = None,
        loopback_address: str = "127.0.0.1",
        worker_port: int | None = None,
        worker_port_range: tuple[int, int] | None = (54000, 55000),
        interchange_port_range: tuple[int, int] | None = (55000, 56000),
        storage_access: Any = None,
        working_dir: str | None = None,
        worker_debug: bool = False,
        max_workers_per_block: int = 1,
        prefetch_capacity: int = 0,
        heartbeat_threshold: int = 120,
        heartbeat_period: int = 30,
        drain_period: int | None = None,
        poll_period: int = 10,
        address_probe_timeout: int | None = None,
        worker_logdir_root: str | None = None,
        mpi_launcher: str = "mpiexec",
        block_error_handler: bool | Callable[..., None] = True,
        encrypted: bool = False,
        remote_monitoring_radio: Any = None,
        **old: Any,
    ) -> None:
        refuse_unknown(type(self).__name__, old)
        if mpi_launcher not in mpi_prefix_composer.VALID_LAUNCHERS:
            raise ValueError(
                f"mpi_launcher={mpi_launcher!r}: give one of {', '.join(mpi_prefix_composer.VALID_LAUNCHERS)}"
            )
        launcher = getattr(provider, "launcher", None)
        if launcher is not None and not isinstance(launcher, SimpleLauncher):
            raise TypeError(f"MPIExecutor: its provider has the launcher {launcher!r}; give SimpleLauncher()")
        EngineExecutor.__init__(self)
        keep(self, {name: value for name, value in locals().items() if name != "old"})
        if provider is None:
            self.provider = LocalProvider(launcher=SimpleLauncher())

    def worker_environment(self) -> dict[str, str]:
        """Nothing."""
        return {}

    @property
    def workers_per_node(self) -> int:
        """`max_workers_per_block`."""
        return self.max_workers_per_block

    def wanted_workers(self, cores: int) -> int:  # noqa: ARG002
        """`max_workers_per_block`."""
        return self.max_workers_per_block

    def worker_limit(self) -> int | None:
        """`max_workers_per_block`."""
        return self.max_workers_per_block

    def validate_resource_spec(self, resource_specification: Mapping[str, Any]) -> None:
        """As the base class says."""
        mpi_prefix_composer.validate_resource_spec(resource_specification)

    def prepare(self, callee: Callable[..., Any], resource_specification: Mapping[str, Any]) -> Callable[..., Any]:
        """The call with the variables of its specification."""
        return _WithMPIEnvironment(callee, self.mpi_launcher, mpi_prefix_composer.complete(resource_specification))

    def monitor_resources(self) -> bool:
        """No: its programs run elsewhere."""
        return False


class _WithMPIEnvironment:
    """A function that finds in its environment how it shall start MPI programs. Runs on a worker."""

    def __init__(self, fn: Callable[..., Any], launcher: str, spec: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._launcher = launcher
        self._spec = dict(spec)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        spec = self._spec
        hosts = job_hosts()[: spec["num_nodes"]]
        variables = mpi_prefix_composer.compose_all(self._launcher, spec, hosts)
        variables |= {f"PARSL_{key.upper()}": str(value) for key, value in spec.items()}
        variables["PARSL_MPI_NODELIST"] = ",".join(hosts or [socket.gethostname()])
        kept = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            return self._fn(*args, **kwargs)
        finally:
            for name, value in kept.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@functools.cache
def job_hosts() -> list[str]:
    """The nodes of this batch job; none where no batch system names them."""
    if nodes := os.environ.get("SLURM_JOB_NODELIST"):
        command = ["scontrol", "show", "hostnames", nodes]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.split()
    if path := os.environ.get("PBS_NODEFILE"):
        return list(dict.fromkeys(Path(path).read_text().split()))
    return []
