"""The options of an engine, checked once, when they are given."""

# ruff: noqa: RUF009 - _option() is a field

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mpitask.errors import ConfigurationError, check_names

MAX_WORKERS = 4096


def _option(default: Any, form: str | tuple[str, ...], text: str, *, is_late: bool = True) -> Any:
    """A field of `Config`. This is the one place that says what an option is; the command line is made from it.

    Args:
        default: its default.
        form: how it is written on the command line: number, switch, text, texts, object or objects (MODULE:NAME), or
            the words to choose from.
        text: what `--help` says.
        is_late: an engine that runs already can take it over.
    """
    return dataclasses.field(default=default, metadata={"form": form, "text": text, "is_late": is_late})


@dataclass(frozen=True)
class Config:
    """The options of an engine. Immutable.

    Args:
        workers: worker processes of each rank that runs tasks; "auto": one for each core that its node has for it.
        inline: the rank's own process runs the tasks, in one thread, instead of worker processes. A crash in a task
            then ends the rank.
        progress: how an idle engine waits. "adaptive" sleeps; "spin" keeps a core busy and answers sooner.
        retries: how often a task that failed, or whose worker died, is tried again.
        loss_retries: how often it is tried again after the loss of its worker or rank, before `retries` are used up.
        exit_mode: what the normal end of a `with load():` block does. "wait" finishes all tasks, "cleanup" drops what
            has not ended, "skip" leaves the engine running. After an exception tasks are dropped, but with "skip".
        on_task_failure: what the end of a script does when tasks have failed and nobody has looked at their results.
            "warn" says so in one line on standard error; "exit" also ends `python -m mpitask` with exit code 1.
        run_dir: parent of the directories, one for each run, that hold logs and checkpoints. Nothing is made there
            before something is to be written.
        retry_handler: called as `retry_handler(exception, record)` after a failed attempt; what it returns is added up,
            and the task is tried again while the sum is at most `retries`. An exception it raises ends the task.
        std_autopath: called as `std_autopath(record, "stdout")` for `stdout=AUTO_LOGNAME`; gives a path, or a path and
            a mode.
        app_cache: False switches memoisation off, whatever apps say.
        cache_failures: memoised apps whose call has failed give the same exception to later calls of this run, without
            another try. By default a failed call is run again when it is made again.
        memoizer: a `Memoizer` to be used instead of the one that the checkpoint options describe.
        checkpoint_mode: when results of memoised apps are written to the run directory; None: never.
        checkpoint_files: checkpoints to begin with; None with a mode: all that are in `run_dir`.
        checkpoint_period: "HH:MM:SS" between two periodic checkpoints.
        hooks: each is called as `hook(record, old_state, new_state)` whenever a task changes its state.
        ring_bytes: size of each of the two shared-memory rings of a worker; a power of two.

    Raises:
        ConfigurationError: an option does not exist (the message names the nearest one), or its value is out of its
            range (the message says what is allowed).
    """

    def __new__(cls, *_: Any, **options: Any) -> Config:
        """Made before the generated `__init__` could complain about a name without saying which it might have been."""
        check_names("option", options, [field.name for field in dataclasses.fields(cls)])
        return super().__new__(cls)

    workers: int | Literal["auto"] = _option(
        "auto", "number", "worker processes of each rank, or auto: one for each core (default)", is_late=False
    )
    inline: bool = _option(False, "switch", "the ranks run tasks themselves, without worker processes", is_late=False)
    progress: Literal["adaptive", "spin"] = _option(
        "adaptive", ("adaptive", "spin"), "how idle ranks wait: sleeping (default), or busy", is_late=False
    )
    retries: int = _option(0, "number", "how often a task that failed is tried again")
    loss_retries: int = _option(0, "number", "further attempts after the loss of a worker or rank")
    exit_mode: Literal["wait", "cleanup", "skip"] = _option(
        "wait", ("wait", "cleanup", "skip"), "what the normal end of a `with load():` block does"
    )
    on_task_failure: Literal["warn", "exit"] = _option(
        "warn",
        ("warn", "exit"),
        "of failures that nobody looked at: one line at the end (default), or exit code 1",
    )
    ring_bytes: int = _option(
        1 << 18, "number", "size of each shared-memory ring of a worker; a power of two", is_late=False
    )
    run_dir: str | os.PathLike[str] = _option("runinfo", "text", "parent of the runs' directories (default runinfo)")
    retry_handler: Callable[[BaseException, Any], float] | None = _option(
        None, "object", "a function MODULE:NAME that says what a failed attempt costs"
    )
    std_autopath: Callable[[Any, str], Any] | None = _option(
        None, "object", "a function MODULE:NAME that gives paths for AUTO_LOGNAME"
    )
    app_cache: bool = _option(True, "switch", "remember results of apps with cache=True (default)")
    cache_failures: bool = _option(False, "switch", "calls that failed fail again in this run, without another try")
    memoizer: Any = _option(None, "object", "a memoizer MODULE:NAME, or what makes it")
    checkpoint_mode: Literal["task_exit", "periodic", "dfk_exit", "manual"] | None = _option(
        None, ("task_exit", "periodic", "dfk_exit", "manual"), "when results of memoised apps are written"
    )
    checkpoint_files: Sequence[str] | None = _option(None, "texts", "a checkpoint to begin with; may be repeated")
    checkpoint_period: str | None = _option(None, "text", "HH:MM:SS between two periodic checkpoints")
    hooks: Sequence[Callable[[Any, str, str], None]] = _option(
        (), "objects", "a function MODULE:NAME to be told of every task; may be repeated"
    )

    def __post_init__(self) -> None:  # noqa: PLR0912 - one for each option
        if self.workers != "auto" and (
            not isinstance(self.workers, int) or isinstance(self.workers, bool) or not 1 <= self.workers <= MAX_WORKERS
        ):
            raise ConfigurationError(f"workers={self.workers!r}: give a number from 1 to {MAX_WORKERS}, or 'auto'")
        for name in ("inline", "cache_failures"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give True or False")
        if self.inline and self.workers not in ("auto", 1):
            raise ConfigurationError("inline=True means one worker: leave `workers` out")
        if self.progress not in ("adaptive", "spin"):
            raise ConfigurationError(f"progress={self.progress!r}: give 'adaptive' or 'spin'")
        if self.exit_mode not in ("wait", "cleanup", "skip"):
            raise ConfigurationError(f"exit_mode={self.exit_mode!r}: give 'wait', 'cleanup' or 'skip'")
        if self.on_task_failure not in ("warn", "exit"):
            raise ConfigurationError(f"on_task_failure={self.on_task_failure!r}: give 'warn' or 'exit'")
        for name in ("retries", "loss_retries"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:
                raise ConfigurationError(f"{name}={value!r}: give a number from 0 to 255")
        size = self.ring_bytes
        if not isinstance(size, int) or size & (size - 1) or not 1 << 12 <= size <= 1 << 30:
            raise ConfigurationError(f"ring_bytes={size!r}: give a power of two from 4096 to 2**30")
        for name in ("retry_handler", "std_autopath"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give a function")
        if not isinstance(self.run_dir, str | os.PathLike):
            raise ConfigurationError(f"run_dir={self.run_dir!r}: give a path")
        modes = (None, "task_exit", "periodic", "dfk_exit", "manual")
        if self.checkpoint_mode not in modes:
            raise ConfigurationError(f"checkpoint_mode={self.checkpoint_mode!r}: give one of {modes}")
        if self.memoizer is not None and (self.checkpoint_mode or self.checkpoint_files or self.checkpoint_period):
            raise ConfigurationError("memoizer= has checkpoint options of its own: give them there")


def make_config(config: Config | None, options: dict[str, Any]) -> Config:
    """A configuration with some options replaced.

    Raises:
        ConfigurationError: an option does not exist; the message names the nearest one.
    """
    base = Config() if config is None else config
    if not isinstance(base, Config):
        raise ConfigurationError(f"load() takes a Config or keyword options, not a {type(base).__name__}")
    return dataclasses.replace(base, **options)


def asked_for(config: Config | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a call of `load` asks for, without the defaults."""
    asked = {}
    for field in dataclasses.fields(Config):
        value = options.get(field.name, field.default if config is None else getattr(config, field.name))
        if field.name in options or value is not field.default:
            asked[field.name] = value
    return asked


def is_late(name: str) -> bool:
    """Whether an engine that runs already can take over an option."""
    return next(bool(field.metadata["is_late"]) for field in dataclasses.fields(Config) if field.name == name)


def flag_of(name: str) -> str:
    """The option's name on the command line."""
    return "--" + name.replace("_", "-")
