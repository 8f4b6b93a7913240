"""`parsl.executors.high_throughput.mpi_prefix_composer`: how an MPI program is started for a resource specification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mpitask.compat.parsl.executors.errors import InvalidResourceSpecification

VALID_LAUNCHERS = ("srun", "aprun", "mpiexec")
_KEYS = frozenset({"num_nodes", "num_ranks", "ranks_per_node", "launcher_options"})
_FORMS = {
    "mpiexec": ("mpiexec -n {ranks} -ppn {each}", " -hosts {hosts}"),
    "srun": ("srun --ntasks {ranks} --ntasks-per-node {each} --nodes {nodes}", " --nodelist {hosts}"),
    "aprun": ("aprun -n {ranks} -N {each}", " -node-list {hosts}"),
}


def validate_resource_spec(resource_spec: Mapping[str, Any]) -> None:
    """Checks a specification.

    Raises:
        InvalidResourceSpecification: it is empty, has other keys, or its numbers contradict one another.
    """
    complete(resource_spec)


def complete(resource_spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification with all its numbers: ranks = nodes * ranks of each node.

    Raises:
        InvalidResourceSpecification: as `validate_resource_spec`.
    """
    if not resource_spec:
        raise InvalidResourceSpecification(
            (), "an MPIExecutor needs parsl_resource_specification: num_nodes, num_ranks, ranks_per_node"
        )
    wrong = set(resource_spec) - _KEYS
    if wrong:
        raise InvalidResourceSpecification(wrong, f"there are: {', '.join(sorted(_KEYS))}")
    numbers = {}
    for key in _KEYS - {"launcher_options"}:
        try:
            numbers[key] = int(resource_spec.get(key) or 0)
        except (TypeError, ValueError):
            numbers[key] = -1
        if numbers[key] < 0:
            raise InvalidResourceSpecification({key}, f"{key}={resource_spec[key]!r}: give a number, 1 or more")
    nodes = numbers["num_nodes"] or 1
    each = numbers["ranks_per_node"] or max(1, math.ceil(numbers["num_ranks"] / nodes))
    ranks = numbers["num_ranks"] or nodes * each
    if ranks > nodes * each:
        raise InvalidResourceSpecification(
            {"num_ranks", "num_nodes", "ranks_per_node"}, f"{ranks} ranks on {nodes} nodes with {each} each"
        )
    options = str(resource_spec.get("launcher_options") or "")
    return {"num_nodes": nodes, "num_ranks": ranks, "ranks_per_node": each, "launcher_options": options}


def compose_all(mpi_launcher: str, resource_spec: Mapping[str, Any], node_hostnames: Sequence[str]) -> dict[str, str]:
    """Variables with command lines to put before an MPI program; PARSL_MPI_PREFIX is that of `mpi_launcher`."""
    if mpi_launcher not in VALID_LAUNCHERS:
        raise RuntimeError(f"mpi_launcher={mpi_launcher!r}: give one of {', '.join(VALID_LAUNCHERS)}")
    spec = complete(resource_spec)
    found = {}
    for launcher, (form, on_hosts) in _FORMS.items():
        words = form + (on_hosts if node_hostnames else "") + (" {options}" if spec["launcher_options"] else "")
        found[f"PARSL_{launcher.upper()}_PREFIX"] = words.format(
            ranks=spec["num_ranks"],
            each=spec["ranks_per_node"],
            nodes=spec["num_nodes"],
            hosts=",".join(node_hostnames),
            options=spec["launcher_options"],
        )
    found["PARSL_MPI_PREFIX"] = found[f"PARSL_{mpi_launcher.upper()}_PREFIX"]
    return found
