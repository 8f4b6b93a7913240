"""The command line: `python -m mpitask script.py`."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mpitask import allocation, mpi, running
from mpitask.agent import serve
from mpitask.cli import ending
from mpitask.cli import target as target_module
from mpitask.cli.options import config_of, parse
from mpitask.cli.target import Target
from mpitask.compat import parsl
from mpitask.config import Config
from mpitask.early import end_on_interrupt, launched_rank
from mpitask.engine import Engine
from mpitask.environment import allotted_cores, usable_cores
from mpitask.errors import ConfigurationError
from mpitask.logs import set_stream_logger

USAGE_ERROR = 2

_LET_RANK_0_SPEAK_S = 4.0
"""Longer than ranks that started together are apart when they find the same error."""


def _complain(message: str) -> None:
    """An error of the whole job, once: by the process that the launcher calls 0."""
    if launched_rank() == 0:
        print(f"mpitask: {message}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line; ends the process with the script's exit code."""
    end_on_interrupt()
    try:
        _open_standard_streams()
        options, target, given = parse(argv)
        _log_if_asked()
        launched = mpi.launched_size()
        if options.ranks is not None:
            if launched > 0:
                raise ConfigurationError(
                    "-n starts mpiexec itself: leave it out when mpiexec or srun runs this command"
                )
            _become_mpiexec(options.ranks, options.without_ranks)
        target.enter()
        config = config_of(given)
        job = mpi.Job.join(options.fanout) if launched > 0 else None
        share = None
        if options.virtual_slots is not None and config.workers == "auto":
            workers = 0
        elif job is None:
            workers = usable_cores() if config.workers == "auto" else config.workers
        else:
            agents, cores = job.local_agents()
            share = max(1, min(allotted_cores(cores) // max(1, agents), usable_cores()))
            workers = share if config.workers == "auto" else config.workers
            job.crowding = agents * (1 if config.inline else workers + 2) / max(1, cores)
        if job is None and (unused := allocation.unused_nodes("python -m mpitask ...")):
            _complain(unused)
        if options.parsl:
            parsl.install(workers)
        if job is not None and job.rank > 0:
            report = None if options.stats is None else _Report(options.stats / f"rank-{job.rank}.json")
            clean = serve(
                config,
                workers=workers,
                rank=job.rank,
                parent=job.parent,
                network=job,
                virtual_slots=options.virtual_slots or 0,
                cores=share,
                report=report,
            )
            _leave(job, 0, clean=clean)
        engine = _start(config, workers, options.virtual_slots or 0, job)
    except ConfigurationError as error:
        _complain(str(error))  # found by every rank alike
        mpi.leave()
        if launched_rank() != 0:
            time.sleep(_LET_RANK_0_SPEAK_S)  # the launcher ends everybody as soon as one rank has failed
        sys.exit(USAGE_ERROR)
    home = os.getpid()
    code = _run(engine, target)
    if os.getpid() != home:
        _end_forked_script(code)
    code = _look_back(engine, code)
    clean = engine.close(drop=True)
    _leave(job, code, clean=clean)


def _open_standard_streams() -> None:
    """Where one was closed from the start, the next file would get its number, and what everybody writes there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


class _Report:
    """Writes what an engine has counted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, stats: dict[str, int]) -> None:
        self._path.write_text(json.dumps(stats))


def _start(config: Config, workers: int, virtual_slots: int, job: mpi.Job | None) -> Engine:
    alone = job is None or job.size == 1
    inline = int(config.inline and alone)
    engine = Engine(
        config,
        workers=workers if alone and not inline else 0,
        inline_workers=inline,
        virtual_slots=virtual_slots if alone else 0,
        network=None if alone else job,
    )
    engine.is_job = True
    running.set_current(engine.start())
    return engine


def _log_if_asked() -> None:
    """MPITASK_LOG=debug: every rank writes its log to standard error, the ranks' places in the tree included."""
    asked = os.environ.get("MPITASK_LOG", "")
    levels = logging.getLevelNamesMapping()
    if asked and asked.upper() not in levels:
        raise ConfigurationError(f"MPITASK_LOG={asked}: give one of {', '.join(name.lower() for name in levels)}")
    if asked:
        set_stream_logger(level=levels[asked.upper()])


class _Terminated(SystemExit):
    """SIGTERM or SIGHUP has come."""


def _on_term(number: int, *_: Any) -> NoReturn:
    for further in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(further, signal.SIG_IGN)
    raise _Terminated(128 + number)


def _on_second_interrupt(*_: Any) -> NoReturn:
    """Somebody does not want to wait for an orderly end: what is below ends with this process."""
    os.write(2, b"mpitask: interrupted again; ended at once\n")
    os._exit(128 + signal.SIGINT)


def _run(engine: Engine, target: Target) -> int:
    """Runs the script as __main__ and, at its normal end, waits for all tasks. The exit code."""
    signal.signal(signal.SIGTERM, _on_term)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _on_term)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        try:
            target.run()
        except SystemExit as error:
            if not ending.is_good(error.code):
                raise
        ending.finish(engine)
    except SystemExit as error:
        return _code_of(error)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, _on_second_interrupt)
        print("mpitask: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BaseException as error:  # noqa: BLE001 - as the interpreter does for a script
        if isinstance(error, BrokenPipeError) and ending.readers_have_gone():
            return ending.BROKEN_PIPE
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename in (__file__, target_module.__file__):
            frames = frames.tb_next
        traceback.print_exception(type(error), error, frames)
        return 1
    return 0


def _look_back(engine: Engine, code: int) -> int:
    """Tells of what the script has not heard: failures, and tasks that end with it. The exit code."""
    dropped = engine.unfinished
    if dropped:
        plural = "" if dropped == 1 else "s"
        print(f"mpitask: {dropped} task{plural} that had not finished: dropped", file=sys.stderr)
    unseen = engine.unseen_failures()
    if unseen:
        print(f"mpitask: {unseen}", file=sys.stderr)
    return 1 if unseen and code == 0 and engine.config.on_task_failure == "exit" else code


def _code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _exit_now(code: int) -> NoReturn:
    ending.flush()
    os._exit(code)


def _end_forked_script(code: int) -> NoReturn:
    """Ends a child of the script that was forked and has come to its end: the engine and MPI are its parent's."""
    with contextlib.suppress(Exception):
        sys.modules["__main__"].__dict__.clear()  # what is written to files that nobody has closed gets there
        gc.collect()
    _exit_now(code)


def _leave(job: mpi.Job | None, code: int, *, clean: bool) -> NoReturn:
    """Ends the process: through MPI_Finalize where every rank has ended in order, else at once."""
    if not clean:
        _complain("some processes did not end in time and are left to the kernel and the launcher")
        _exit_now(code or 1)
    if not ending.flush() and code == 0:
        code = ending.BROKEN_PIPE
    if job is not None:
        mpi.leave()
    ending.say_who_is_waited_for()
    sys.exit(code)


def _become_mpiexec(ranks: int, argv: list[str]) -> NoReturn:
    mpiexec = mpi.find_mpiexec()
    defaults = {
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
    }
    if os.geteuid() == 0:
        defaults |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    ending.flush()
    os.execv(mpiexec, [mpiexec, "-n", str(ranks), sys.executable, "-m", "mpitask", *argv])
