"""`parsl.providers`: accepted in configurations; see `base`."""

from mpitask.compat.aliases import lazy_submodules
from mpitask.compat.parsl.providers.aws.aws import AWSProvider
from mpitask.compat.parsl.providers.azure.azure import AzureProvider
from mpitask.compat.parsl.providers.condor.condor import CondorProvider
from mpitask.compat.parsl.providers.googlecloud.googlecloud import GoogleCloudProvider
from mpitask.compat.parsl.providers.grid_engine.grid_engine import GridEngineProvider
from mpitask.compat.parsl.providers.kubernetes.kube import KubernetesProvider
from mpitask.compat.parsl.providers.local.local import LocalProvider
from mpitask.compat.parsl.providers.lsf.lsf import LSFProvider
from mpitask.compat.parsl.providers.pbspro.pbspro import PBSProProvider
from mpitask.compat.parsl.providers.slurm.slurm import SlurmProvider
from mpitask.compat.parsl.providers.torque.torque import TorqueProvider

__all__ = [
    "AWSProvider",
    "AzureProvider",
    "CondorProvider",
    "GoogleCloudProvider",
    "GridEngineProvider",
    "KubernetesProvider",
    "LSFProvider",
    "LocalProvider",
    "PBSProProvider",
    "SlurmProvider",
    "TorqueProvider",
]

_OLD = {"AdHocProvider": "ad_hoc.ad_hoc", "CobaltProvider": "cobalt.cobalt"}

__getattr__ = lazy_submodules(__name__, _OLD)
