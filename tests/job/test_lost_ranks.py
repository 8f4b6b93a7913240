"""What one rank does wrong costs what it has: the others go on."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.processes import Launcher, MpiStack

# In the rank that it is for: MPI_Isend to a peer fails from the n-th on, or one frame is changed on its way out.
HOOK = """
import importlib.abc, importlib.util, sys

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "mpitask.mpi":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            from mpitask.native import ffi
            real = next(c for c in vars(module).values() if isinstance(c, type) and hasattr(c, "_table"))
            make = real._table
            sent = [0]

            def table(self):
                t = make(self)
                if self.rank != {rank}:
                    return t
                size = t.handle_size
                void = "int" if size == 4 else "void *"
                kind = f"int(*)(void *, int, {{void}}, int, int, {{void}}, void *)"
                isend = ffi.cast(kind, t.isend)

                @ffi.callback(kind.replace("(*)", ""))
                def wrapped(data, n, type_, peer, tag, comm, where):
                    sent[0] += peer == {peer}
                    if peer == {peer} and sent[0] > {after}:
                        {what}
                    return isend(data, n, type_, peer, tag, comm, where)

                self._kept = wrapped
                t.isend = int(ffi.cast("uintptr_t", wrapped))
                return t

            real._table = table

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Hook())
"""

SCRIPT = """
import os, time
from mpitask import WorkerLost, python_app

@python_app
def where(i):
    time.sleep(0.01)
    return i, os.environ.get("PMI_RANK") or os.environ.get("OMPI_COMM_WORLD_RANK")

lost = 0
for _ in range(20):
    for i, future in enumerate([where(i) for i in range(20)]):
        try:
            assert future.result(timeout=60)[0] == i
        except WorkerLost as error:
            assert "rank" in str(error), error
            lost += 1
print(f"all told, {lost > 0}", flush=True)
"""

WAYS: dict[str, dict[str, Any]] = {
    "a send to it fails": {"rank": 0, "peer": 2, "what": "return 15"},
    "it sends no records": {
        "rank": 2,
        "peer": 0,
        "what": "ffi.memmove(ffi.cast('char *', data) + 16, b'\\xff' * 16, 16)",
    },
}


@pytest.mark.kills_ranks
@pytest.mark.parametrize("how", WAYS)
def test_one_rank_of_three(
    launcher: Launcher, mpi: MpiStack, how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(HOOK.format(after=15, **WAYS[how]))
    script = launcher.start(SCRIPT, n=3, mpi=mpi, env={"PYTHONPATH": str(folder)})
    script.wait_for_output("all told, True")
    script.finish(timeout_s=60)
