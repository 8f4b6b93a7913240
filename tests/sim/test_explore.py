"""Small jobs with wild delays, deaths, refusals and limits, from seeds; every engine checks itself after each step.

A failing seed replays: `python -m mpitask.sim explore --seeds N:N+1`.
"""

from __future__ import annotations

import os

import pytest

from mpitask.sim import explore

SHORT_SEEDS, LONG_SEEDS = range(int(os.environ.get("MPITASK_SIM_SEEDS", "200"))), range(200, 10_200)


def test_short_seeds() -> None:
    assert explore.sweep(SHORT_SEEDS) > 0


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_long_seeds() -> None:
    assert explore.sweep(LONG_SEEDS) > 0


def test_replay_is_exact() -> None:
    for seed in (3, 17, 95):
        assert explore.play(seed) == explore.play(seed)


def test_a_failing_seed_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(seed: int) -> dict[str, int]:
        raise explore.FaultError("broken")

    monkeypatch.setattr(explore, "play", fail)
    with pytest.raises(explore.FaultError, match=r"seed 5: broken; replay it with: .* explore --seeds 5:6"):
        explore.sweep(range(5, 9))
