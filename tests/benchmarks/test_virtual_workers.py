"""The benchmark of virtual workers, as small as can be: it runs, counts right and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers.processes import LAUNCHER_SETTINGS, ROOT, MpiStack


def test_it_runs_and_leaves_nothing(tmp_path: Path, mpich: MpiStack) -> None:
    report = tmp_path / "report.json"
    words = "--slots 16 --per-rank 8 --least-agents 2 --fanout 1 --seconds 0.02 --rate-tasks 500 --rest 0 --gauge 0.1"
    words += f" --strong-tasks 100 --strong-seconds 0.01 --json {report}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "virtual_workers.py"), *words.split()],
        env=dict(os.environ) | LAUNCHER_SETTINGS,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (job,) = json.loads(report.read_text())["jobs"]
    assert (job["slots"], job["slots_per_agent"], job["left_behind"]) == (16, 8, [])
    assert job["below_root"]["ranks"] == {"relays": 1, "agents": 1}
    assert [job[case]["tasks"] for case in ("rate", "weak", "strong")] == [500, 160, 100]
    assert [round(job[case]["ideal_s"], 9) for case in ("weak", "strong")] == [0.2, 0.07]
    assert all(0 < job[case]["efficiency"] <= 1 for case in ("weak", "strong"))
    assert "| 16 | 2 |" in done.stdout
