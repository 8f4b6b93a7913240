"""The options of the command line: what `Config` has, and what only a job has."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mpitask import mpi
from mpitask._version import __version__
from mpitask.cli.target import Target
from mpitask.config import Config, flag_of
from mpitask.errors import ConfigurationError, nearest

MAX_VIRTUAL_SLOTS = 1 << 20

_USAGE = "python -m mpitask [options] script.py | -m MODULE | -c CODE | - [its arguments]"
_EPILOG = """\
examples:
  python -m mpitask script.py                    one worker process for each core of this machine, no MPI
  python -m mpitask -n 3 script.py               starts mpiexec itself: 1 root and 2 ranks that run tasks
  mpiexec -n 3 python -m mpitask script.py       the same by hand; with srun it is the same line
  python -m mpitask -m package --its-option      a module, a command (-c), a folder or archive with a __main__.py,
                                                 or standard input (-) in place of a script
"""


class _Parser(argparse.ArgumentParser):
    """Errors that say what is right."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        for word in message.split():
            if word.startswith("--") and word.split("=")[0] not in known:
                near = nearest(word.split("=")[0], known)
                message += f"; did you mean {near}?" if near else ""
                break
        raise ConfigurationError(f"{message}\n(python -m mpitask --help shows all options)")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mpitask",
        usage=_USAGE,
        description="Runs a script whose apps become tasks. Rank 0 runs the script, the other ranks serve it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-n", dest="ranks", metavar="N", type=int, help="start `mpiexec -n N` with this command")
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
    of_engine = parser.add_argument_group("options of the engine, as load() has them")
    for field in dataclasses.fields(Config):
        _add_option(of_engine, field)
    return parser


def _add_option(group: Any, field: dataclasses.Field[Any]) -> None:
    form, described = field.metadata["form"], {"dest": field.name, "help": field.metadata["text"]}
    described["default"] = argparse.SUPPRESS
    if form == "switch":
        described["action"] = argparse.BooleanOptionalAction
    elif isinstance(form, tuple):
        described["choices"] = form
    else:
        described["metavar"] = {"number": "N", "object": "M:NAME", "objects": "M:NAME"}.get(form, "TEXT")
        if form in ("texts", "objects"):
            described["action"] = "append"
    group.add_argument(flag_of(field.name), **described)


def _check_virtual(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    slots = options.virtual_slots
    if slots is not None and not 1 <= slots <= MAX_VIRTUAL_SLOTS:
        parser.error(f"--virtual-slots {slots}: give a number from 1 to {MAX_VIRTUAL_SLOTS}")
    if slots is not None and options.inline:
        parser.error("--virtual-slots run no functions, --inline does: leave one of them out")
    if options.stats is not None and not options.stats.is_dir():
        parser.error(f"--stats {options.stats}: there is no such folder")


def _split(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[list[str], Target | None]:
    """Our options, and what is to be run with all that follows."""
    takes_value = {
        word for action in parser._actions if action.nargs is None and action.const is None
        for word in action.option_strings
    }  # fmt: skip
    known = {word for action in parser._actions for word in action.option_strings}
    at = 0
    while at < len(argv):
        word = argv[at]
        for flag, kind in (("-m", "module"), ("-c", "command")):
            if word.startswith(flag):
                joined = [word[2:]] if len(word) > 2 else []  # -mNAME
                rest = [*joined, *argv[at + 1 :]]
                if not rest:
                    parser.error(f"argument {flag}: expected one argument")
                return list(argv[:at]), Target(kind, rest[0], rest[1:])
        if word == "-" or not word.startswith("-"):
            return list(argv[:at]), Target("script", word, list(argv[at + 1 :]))
        if word.split("=")[0] not in known and not word.startswith("-n"):
            parser.parse_args(argv[at : at + 1])  # says so
        at += 2 if word in takes_value else 1
    return list(argv), None


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Target, dict[str, Any]]:
    """Reads the command line. Gives our options, what is to be run, and what `make_config` makes the options of.

    `options.without_ranks` are the words of it that mpiexec's processes get.

    Raises:
        ConfigurationError: something is wrong, or `--help` is asked for beside what cannot be.
    """
    parser = _make_parser()
    words = list(sys.argv[1:] if argv is None else argv)
    head, target = _split(parser, words)
    options = parser.parse_args(head)
    if target is None:
        parser.error("the following arguments are required: script")
    if options.ranks is not None and options.ranks < 1:
        parser.error(f"-n {options.ranks}: give a number of ranks, 1 or more")
    if options.fanout < 1:
        parser.error(f"--fanout {options.fanout}: give a number, 1 or more")
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(Config) if hasattr(options, f.name)}
    for field in dataclasses.fields(Config):
        if field.metadata["form"] == "number" and field.name in given:
            text = given[field.name]
            if text.isdigit():
                given[field.name] = int(text)
            elif text != field.default:
                hint = "a number or auto" if field.default == "auto" else "a number"
                parser.error(f"{flag_of(field.name)} {text}: give {hint}")
    options.inline = given.get("inline", False)
    _check_virtual(parser, options)
    options.without_ranks = _without_ranks(head) + words[len(head) :]
    return options, target, given


def _without_ranks(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if not (skip or word.startswith("-n")):
            kept.append(word)
        skip = word == "-n"
    return kept


def config_of(given: dict[str, Any]) -> Config:
    """The engine's options. After the search path has been set, for MODULE:NAME may be beside the script.

    Raises:
        ConfigurationError: one is wrong.
    """
    found = dict(given)
    for field in dataclasses.fields(Config):
        if field.name in given and field.metadata["form"] == "object":
            found[field.name] = _find_object(field.name, given[field.name])
        elif field.name in given and field.metadata["form"] == "objects":
            found[field.name] = [_find_object(field.name, text) for text in given[field.name]]
    memoizer = found.get("memoizer")
    if isinstance(memoizer, type):
        found["memoizer"] = memoizer()
    return Config(**found)


def _find_object(name: str, text: str) -> Any:
    module, colon, path = text.partition(":")
    if not colon or not module or not path:
        raise ConfigurationError(f"{flag_of(name)} {text}: give MODULE:NAME, as in tools{os.extsep}hooks:tell")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{flag_of(name)} {text}: {error}") from error
    return found
