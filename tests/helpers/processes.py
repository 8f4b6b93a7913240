"""Start scripts as a user would, with a hard time limit; find and kill what they leave behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

MARK = "MPITASK_TEST_ID"
ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY = Path("/dev/shm")
LAUNCHER_SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


@dataclass(frozen=True)
class MpiStack:
    """One MPI with the interpreter whose mpi4py uses it."""

    name: str
    python: Path

    @property
    def mpiexec(self) -> str:
        beside = self.python.parent / "mpiexec"
        return str(beside) if beside.exists() else "mpiexec"


LOCAL_PYTHON = Path(sys.executable)


@dataclass
class Result:
    rc: int
    out: str
    err: str
    wall_s: float


def marked_processes(mark: str) -> list[int]:
    """Processes (not zombies) that carry the mark in their environment."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (
                needle in (entry / "environ").read_bytes()
                and (entry / "stat").read_text().rsplit(")")[1].split()[0] != "Z"
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def describe(pids: Sequence[int]) -> str:
    lines = []
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:150]
        except OSError:
            continue
        lines.append(f"{pid}: {words}")
    return "\n".join(lines)


def shared_memory() -> set[str]:
    """The segments of all jobs on this machine."""
    return {path.name for path in SHARED_MEMORY.iterdir() if path.name.startswith(("mpitask", "mpich_shm"))}


def _mapped(name: str) -> bool:
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if name in maps.read_text():
                return True
        except OSError:
            continue
    return False


def forgotten_memory(before: set[str]) -> set[str]:
    """Segments that are new since `before` and that no process has mapped: other tests' jobs may run beside ours.

    Asked twice, for a segment exists for a moment before it is mapped.
    """
    found = shared_memory() - before
    for pause_s in (0.5, 0.0):
        if found := {name for name in found if not _mapped(name)}:
            time.sleep(pause_s)
    return found & shared_memory()


@dataclass
class Script:
    """A running script. Its output is collected; `finish` or the fixture ends it."""

    process: subprocess.Popen[str]
    mark: str
    started: float = field(default_factory=time.monotonic)
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, into), daemon=True)
            for stream, into in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: object, into: list[str]) -> None:
        for line in stream:  # type: ignore[attr-defined]
            with self._news:
                into.append(line)
                self._news.notify_all()

    def wait_for_output(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """Waits until the standard output holds the pattern."""
        return self._wait_for(self.out, pattern, timeout_s)

    def wait_for_error(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """The same with standard error."""
        return self._wait_for(self.err, pattern, timeout_s)

    def _wait_for(self, lines: list[str], pattern: str, timeout_s: float) -> re.Match[str]:
        deadline = time.monotonic() + timeout_s
        with self._news:
            while not (match := re.search(pattern, "".join(lines))):
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not any(r.is_alive() for r in self._readers)):
                    pytest.fail(f"no output like {pattern!r} within {timeout_s} s; {self.so_far()}")
                self._news.wait(min(left, 0.2))
        return match

    def so_far(self) -> str:
        return f"rc {self.process.poll()}\n-- out\n{''.join(self.out)}\n-- err\n{''.join(self.err)}"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def finish(self, timeout_s: float = 120) -> Result:
        """Waits for the end; past the limit everything is killed and the test fails."""
        try:
            rc = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            left = describe(marked_processes(self.mark))
            self.kill()
            pytest.fail(f"still running after {timeout_s} s:\n{left}\n{self.so_far()}")
        wall_s = time.monotonic() - self.started
        for reader in self._readers:
            reader.join(60)
        return Result(rc, "".join(self.out), "".join(self.err), wall_s)

    def kill(self) -> None:
        for pid in marked_processes(self.mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(60)


class Launcher:
    """Starts scripts in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # For the launchers of MPI: what a killed one leaves there hinders the next one with the same process number.
        self.temporary = tempfile.mkdtemp(prefix="mpitask-")
        self.mark = uuid.uuid4().hex
        self.scripts: list[Script] = []

    def start(
        self,
        source: str | Path,
        *,
        n: int | None = None,
        mpi: MpiStack | None = None,
        options: Sequence[str] = (),
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        plain: bool = False,
        command: Sequence[str] | None = None,
    ) -> Script:
        """`python -m mpitask script`, under mpiexec with n, or as `python script` (plain). `command` replaces all."""
        python = str(mpi.python if mpi else LOCAL_PYTHON)
        if isinstance(source, Path):
            path = source
        else:
            path = self.folder / "script.py"
            path.write_text(source)
        words = list(command or [])
        if not command:
            if n is not None:
                assert mpi is not None
                words += [mpi.mpiexec, "-n", str(n)]
            words += [python] + ([] if plain else ["-m", "mpitask", *options]) + [str(path), *args]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PMI_", "OMPI_", "PMIX_"))}
        environment |= LAUNCHER_SETTINGS | {MARK: self.mark, "TMPDIR": self.temporary}
        environment |= {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"} | dict(env or {})
        process = subprocess.Popen(
            words,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        script = Script(process, self.mark)
        self.scripts.append(script)
        return script

    def run(self, source: str | Path, *, timeout_s: float = 120, **options: object) -> Result:
        return self.start(source, **options).finish(timeout_s)  # type: ignore[arg-type]

    def close(self, deadline_s: float = 30) -> str:
        """Waits for the last process to go; kills and names those that do not. Removes the temporary folder."""
        try:
            return self._close(deadline_s)
        finally:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _close(self, deadline_s: float) -> str:
        deadline = time.monotonic() + deadline_s
        while left := marked_processes(self.mark):
            if time.monotonic() > deadline:
                names = describe(left)
                for pid in left:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                return names
            time.sleep(0.02)
        for script in self.scripts:
            script.process.wait(60)
            for stream in (script.process.stdout, script.process.stderr):
                if stream is not None:
                    stream.close()
        return ""
