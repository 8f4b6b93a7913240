"""The command line: `python -m mpitask script.py`."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import logging
import os
import signal
import sys
import time
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mpitask import mpi, running
from mpitask._version import __version__
from mpitask.agent import serve
from mpitask.compat import parsl
from mpitask.config import Config
from mpitask.engine import Engine
from mpitask.environment import usable_cores
from mpitask.errors import ConfigurationError
from mpitask.logs import set_stream_logger

USAGE_ERROR = 2
MAX_VIRTUAL_SLOTS = 1 << 20

_EPILOG = """\
examples:
  python -m mpitask script.py                    one worker process for each core of this machine, no MPI
  python -m mpitask -n 3 script.py               starts mpiexec itself: 1 root and 2 ranks that run tasks
  mpiexec -n 3 python -m mpitask script.py       the same by hand; with srun it is the same line
"""


class _Parser(argparse.ArgumentParser):
    """Errors that say what is right."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        for word in sys.argv[1:]:
            if word.startswith("--") and word.split("=")[0] not in known and word in message:
                near = difflib.get_close_matches(word.split("=")[0], known, 1)
                message += f"; did you mean {near[0]}?" if near else ""
        raise ConfigurationError(f"{message}\n(python -m mpitask --help shows all options)")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mpitask",
        description="Runs a script whose apps become tasks. Rank 0 runs the script, the other ranks serve it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-n", dest="ranks", metavar="N", type=int, help="start `mpiexec -n N` with this command")
    parser.add_argument(
        "--workers",
        metavar="W",
        default="auto",
        help="worker processes of each rank, or auto: one for each core (default)",
    )
    parser.add_argument(
        "--inline", action="store_true", help="the ranks run tasks themselves, without worker processes"
    )
    parser.add_argument(
        "--progress",
        choices=("adaptive", "spin"),
        default="adaptive",
        help="how idle ranks wait: sleeping (default), or busy",
    )
    parser.add_argument(
        "--fanout",
        metavar="K",
        type=int,
        default=mpi.DEFAULT_FANOUT,
        help=f"nodes right below a node in the tree of ranks (default {mpi.DEFAULT_FANOUT})",
    )
    parser.add_argument(
        "--parsl", action="store_true", help="run a script written for Parsl: `import parsl` gives mpitask's"
    )
    parser.add_argument("--virtual-slots", metavar="N", type=int, help=argparse.SUPPRESS)  # see benchmarks/README.md
    parser.add_argument("--stats", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"mpitask {__version__}")
    parser.add_argument("script", help="the Python script")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="its arguments")
    return parser


def _check_virtual(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    slots = options.virtual_slots
    if slots is not None and not 1 <= slots <= MAX_VIRTUAL_SLOTS:
        parser.error(f"--virtual-slots {slots}: give a number from 1 to {MAX_VIRTUAL_SLOTS}")
    if slots is not None and options.inline:
        parser.error("--virtual-slots run no functions, --inline does: leave one of them out")
    if options.stats is not None and not options.stats.is_dir():
        parser.error(f"--stats {options.stats}: there is no such folder")


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    parser = _make_parser()
    options = parser.parse_args(argv)
    if options.workers != "auto":
        if not options.workers.isdigit():
            parser.error(f"--workers {options.workers}: give a number or auto")
        options.workers = int(options.workers)
    if options.ranks is not None and options.ranks < 1:
        parser.error(f"-n {options.ranks}: give a number of ranks, 1 or more")
    if options.fanout < 1:
        parser.error(f"--fanout {options.fanout}: give a number, 1 or more")
    _check_virtual(parser, options)
    if not Path(options.script).is_file():
        parser.error(f"there is no script {options.script!r}")
    return options, Config(workers=options.workers, inline=options.inline, progress=options.progress)


_LET_RANK_0_SPEAK_S = 4.0
"""Longer than ranks that started together are apart when they find the same error."""


def _complain(message: str) -> None:
    """An error of the whole job, once: by the process that the launcher calls 0."""
    if mpi.launched_rank() == 0:
        print(f"mpitask: {message}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line; ends the process with the script's exit code."""
    try:
        options, config = _parse(argv)
        _log_if_asked()
        launched = mpi.launched_size()
        if options.ranks is not None:
            if launched > 0:
                raise ConfigurationError(
                    "-n starts mpiexec itself: leave it out when mpiexec or srun runs this command"
                )
            _become_mpiexec(options.ranks, sys.argv[1:] if argv is None else list(argv))
        _enter_script_folder(options)
        job = mpi.Job.join(options.fanout) if launched > 0 else None
        if options.virtual_slots is not None and config.workers == "auto":
            workers = 0
        elif job is None:
            workers = usable_cores() if config.workers == "auto" else config.workers
        else:
            agents, cores = job.local_agents()
            share = max(1, min(cores // max(1, agents), usable_cores()))
            workers = share if config.workers == "auto" else config.workers
            job.crowding = agents * (1 if config.inline else workers + 2) / max(1, cores)
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
                report=report,
            )
            _leave(job, 0, clean=clean)
        engine = _start(config, workers, options.virtual_slots or 0, job)
    except ConfigurationError as error:
        _complain(str(error))  # found by every rank alike
        mpi.leave()
        if mpi.launched_rank() != 0:
            time.sleep(_LET_RANK_0_SPEAK_S)  # the launcher ends everybody as soon as one rank has failed
        sys.exit(USAGE_ERROR)
    code = _run(engine, options)
    clean = engine.close(drop=True)
    _leave(job, code, clean=clean)


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


def _enter_script_folder(options: argparse.Namespace) -> None:
    """The module search path that `python script.py` would have; the same on all ranks, whose workers inherit it."""
    sys.argv = [options.script, *options.args]
    sys.path[0] = str(Path(options.script).resolve().parent)


def _log_if_asked() -> None:
    """MPITASK_LOG=debug: every rank writes its log to standard error, the ranks' places in the tree included."""
    asked = os.environ.get("MPITASK_LOG", "")
    levels = logging.getLevelNamesMapping()
    if asked and asked.upper() not in levels:
        raise ConfigurationError(f"MPITASK_LOG={asked}: give one of {', '.join(name.lower() for name in levels)}")
    if asked:
        set_stream_logger(level=levels[asked.upper()])


class _Terminated(SystemExit):
    """SIGTERM has come."""


def _on_term(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Terminated(128 + signal.SIGTERM)


def _on_second_interrupt(*_: Any) -> NoReturn:
    """Somebody does not want to wait for an orderly end: what is below ends with this process."""
    os.write(2, b"mpitask: interrupted again; ended at once\n")
    os._exit(128 + signal.SIGINT)


def _run(engine: Engine, options: argparse.Namespace) -> int:
    """Runs the script as __main__ and, at its normal end, waits for all tasks. The exit code."""
    signal.signal(signal.SIGTERM, _on_term)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = Path(options.script)
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=str(path), __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
        engine.wait()
    except SystemExit as error:
        return _code_of(error)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, _on_second_interrupt)
        print("mpitask: interrupted; tasks that had not finished are dropped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BaseException as error:  # noqa: BLE001 - as the interpreter does for a script
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        traceback.print_exception(type(error), error, frames)
        return 1
    return 0


def _code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _exit_now(code: int) -> NoReturn:
    _flush()
    os._exit(code)


def _leave(job: mpi.Job | None, code: int, *, clean: bool) -> NoReturn:
    """Ends the process: through MPI_Finalize where every rank has ended in order, else at once."""
    if not clean:
        _complain("some processes did not end in time and are left to the kernel and the launcher")
        _exit_now(code or 1)
    if job is not None:
        _flush()
        mpi.leave()
    sys.exit(code)


def _become_mpiexec(ranks: int, argv: list[str]) -> NoReturn:
    mpiexec = mpi.find_mpiexec()
    at = argv.index("-n") if "-n" in argv else None
    rest = argv[:at] + argv[at + 2 :] if at is not None else [word for word in argv if not word.startswith("-n")]
    defaults = {
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
    }
    if os.geteuid() == 0:
        defaults |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    _flush()
    os.execv(mpiexec, [mpiexec, "-n", str(ranks), sys.executable, "-m", "mpitask", *rest])
