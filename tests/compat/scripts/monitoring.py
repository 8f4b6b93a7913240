import parsl
from parsl import HighThroughputExecutor, MonitoringHub, python_app
from parsl.addresses import address_by_hostname
from parsl.config import Config
from parsl.launchers import SrunLauncher
from parsl.monitoring.radios.udp import UDPRadio
from parsl.providers import SlurmProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="cluster",
            address="127.0.0.1",
            max_workers_per_node=2,
            provider=SlurmProvider(
                "debug",
                account="me",
                nodes_per_block=2,
                walltime="01:00:00",
                worker_init="module load python",
                launcher=SrunLauncher(overrides="-c 4"),
            ),
            remote_monitoring_radio=UDPRadio(address="127.0.0.1"),
        )
    ],
    monitoring=MonitoringHub(workflow_name="test", resource_monitoring_interval=10),
    strategy="simple",
    max_idletime=60.0,
    usage_tracking=1,
)


@python_app
def square(x):
    return x * x


with parsl.load(config) as dfk:
    print([square(i).result() for i in range(3)], dfk.monitoring, bool(address_by_hostname()))

# prints:
# [0, 1, 4] None True
