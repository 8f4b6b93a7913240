"""`parsl.launchers.base`."""

from __future__ import annotations

from mpitask.compat.parsl.utils import RepresentationMixin


class Launcher(RepresentationMixin):
    """How a command is started on the nodes of a batch job. mpitask's ranks are started by the job's own launcher."""

    def __init__(self, debug: bool = True) -> None:
        self.debug = debug

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int, script_dir: str = "") -> str:  # noqa: ARG002
        """The command line, as it is."""
        return command
