"""`parsl.launchers.launchers`: accepted in configurations; the command lines that they give are simple ones."""

from __future__ import annotations

import logging

from mpitask.compat.parsl._options import keep
from mpitask.compat.parsl.launchers.base import Launcher

_log = logging.getLogger("parsl")


class SimpleLauncher(Launcher):
    """The command as it is."""


class WrappedLauncher(Launcher):
    """The command behind another one."""

    prepend: str

    def __init__(self, prepend: str, debug: bool = True) -> None:
        keep(self, locals())

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int, script_dir: str = "") -> str:  # noqa: ARG002
        """The command line."""
        for what, number in (("tasks per node", tasks_per_node), ("nodes per block", nodes_per_block)):
            if number > 1:
                _log.warning("WrappedLauncher starts one process; %s: %d", what, number)
        return f"{self.prepend} {command}"


class SingleNodeLauncher(Launcher):
    """Several on one node."""

    def __init__(self, debug: bool = True, fail_on_any: bool = False) -> None:
        keep(self, locals())


class GnuParallelLauncher(Launcher):
    """By GNU parallel."""


class _WithOverrides(Launcher):
    words = ""
    overrides: str

    def __init__(self, debug: bool = True, overrides: str = "") -> None:
        keep(self, locals())

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int, script_dir: str = "") -> str:  # noqa: ARG002
        """The command line."""
        words = self.words.format(total=tasks_per_node * nodes_per_block, nodes=nodes_per_block, each=tasks_per_node)
        return " ".join(filter(None, (words, self.overrides, command)))


class MpiExecLauncher(_WithOverrides):
    """By mpiexec."""

    words = "mpiexec -n {total} -ppn {each}"

    def __init__(self, debug: bool = True, bind_cmd: str = "--bind-to", overrides: str = "") -> None:
        keep(self, locals())


class MpiRunLauncher(_WithOverrides):
    """By mpirun."""

    words = "mpirun -np {total}"

    def __init__(self, debug: bool = True, bash_location: str = "/bin/bash", overrides: str = "") -> None:
        keep(self, locals())


class SrunLauncher(_WithOverrides):
    """By srun."""

    words = "srun --ntasks={total} --nodes={nodes}"


class SrunMPILauncher(_WithOverrides):
    """By srun."""

    words = "srun --ntasks={total} --nodes={nodes}"


class AprunLauncher(_WithOverrides):
    """By aprun."""

    words = "aprun -n {total} -N {each}"


class JsrunLauncher(_WithOverrides):
    """By jsrun."""

    words = "jsrun -n {total} -r {each}"
