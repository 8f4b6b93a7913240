"""Telling, once for each configuration, which of its options have no effect here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mpitask.compat.parsl._options import given_options
from mpitask.compat.parsl.executors._engine import EngineExecutor
from mpitask.compat.parsl.executors.threads import ThreadPoolExecutor
from mpitask.compat.parsl.providers.local.local import LocalProvider

if TYPE_CHECKING:
    from mpitask.compat.parsl.config import Config

_log = logging.getLogger("mpitask")
_told: set[str] = set()

_WITHOUT_EFFECT = ("internal_tasks_max_threads", "strategy", "strategy_period", "max_idletime", "monitoring")
_LOCAL_MEANT = frozenset({"init_blocks", "min_blocks", "max_blocks", "nodes_per_block", "launcher", "parallelism"})


def tell_of_ignored(config: Config) -> None:
    """Logs one warning that names the given options without effect, if there are any; the same one only once."""
    given = given_options(config)
    if given.get("strategy", "none") in (None, "none"):
        given.pop("strategy", None)  # that is what happens
    parts = [f"Config: {', '.join(names)}" for names in [[name for name in _WITHOUT_EFFECT if name in given]] if names]
    batch: set[str] = set()
    for executor in config.executors:
        options = given_options(executor)
        if isinstance(executor, ThreadPoolExecutor):
            without = set(options) & {"remote_monitoring_radio"}
        elif isinstance(executor, EngineExecutor):
            without = set(options) - executor.options_with_effect()
            provider = executor.provider
            without |= {f"provider.{name}" for name in getattr(provider, "old_options", ())}
            if isinstance(provider, LocalProvider):
                if set(given_options(provider)) - _LOCAL_MEANT:
                    without |= {f"provider.{name}" for name in set(given_options(provider)) - _LOCAL_MEANT}
            elif provider is not None:
                without.add("provider")
                batch.add(type(provider).__name__)
        else:
            without = set()
        if without:
            parts.append(f"{type(executor).__name__} {executor.label!r}: {', '.join(sorted(without))}")
    if not parts:
        return
    text = f"mpitask runs the tasks, and these options have no effect: {'; '.join(parts)}"
    if batch:
        text += (
            f". In place of {', '.join(sorted(batch))}, start the script inside a job: "
            "srun python -m mpitask --parsl script.py"
        )
    if text not in _told:
        _told.add(text)
        _log.warning("%s", text)
