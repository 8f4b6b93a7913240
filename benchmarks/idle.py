"""What an engine that has nothing to do costs: processor time of a job of 8 ranks, and how it slows its script down.

    python benchmarks/idle.py --seconds 10

Every process of the job is counted: the ranks, their workers, the launcher. The script first sleeps (it wakes twenty
times a second to look at a file), then computes in plain Python. A plain `python script.py` does the same, the two
taking turns: what it uses is subtracted, and what one of its wake-ups costs is shown, because some virtual machines
charge milliseconds for one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import mpiexec

SCRIPT = """
import sys, time
from pathlib import Path

def computation():
    start = time.perf_counter()
    total = 0
    for i in range(3_000_000):
        total += i & 7
    return time.perf_counter() - start

if sys.argv[1] != "plain":
    from mpitask import python_app
    @python_app
    def noop(x):
        return x
    assert [f.result() for f in [noop(i) for i in range(100)]] == list(range(100))
Path(sys.argv[2]).touch()
while Path(sys.argv[2]).exists():
    time.sleep(0.05)
print(min(computation() for _ in range(5)), flush=True)
"""


def wakes(processes: list[psutil.Process]) -> int:
    """How often threads of these processes went to sleep so far."""
    total = 0
    for process in processes:
        for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
            total += int(status.read_text().split("voluntary_ctxt_switches:")[1].split()[0])
    return total


def run(command: list[str], script: Path, way: str, seconds: float) -> tuple[float, float, float]:
    """While the script sleeps: processor seconds and wake-ups per second. Then its best time of the computation."""
    flag = script.parent / "asleep"
    with subprocess.Popen([*command, str(script), way, str(flag)], stdout=subprocess.PIPE, text=True) as process:
        while not flag.exists():
            assert process.poll() is None, "the job has ended early"
            time.sleep(0.02)
        everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        time.sleep(1)  # what follows the last task: workers go to sleep
        before, start = sum(sum(p.cpu_times()[:2]) for p in everyone), time.perf_counter()
        woken = wakes(everyone)
        time.sleep(seconds)
        woken = wakes(everyone) - woken
        used = sum(sum(p.cpu_times()[:2]) for p in everyone) - before
        elapsed = time.perf_counter() - start
        flag.unlink()
        assert process.stdout is not None
        computation = float(process.stdout.readline())
    assert process.returncode == 0
    return used / elapsed, woken / elapsed, computation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--ranks", type=int, default=8)
    options = parser.parse_args()
    job = [mpiexec(), "-n", str(options.ranks), sys.executable, "-m", "mpitask", "--workers", "1"]
    used, woken, slowdowns, cost_of_wake = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(SCRIPT)
        for _ in range(3):
            base, base_wakes, plain = run([sys.executable], script, "plain", options.seconds)
            cores, job_wakes, busy = run(job, script, "mpitask", options.seconds)
            used.append(cores - base)
            woken.append(job_wakes - base_wakes)
            cost_of_wake.append(base / base_wakes)
            slowdowns.append(busy / plain - 1)
    result = {
        "cores_used": statistics.median(used),
        "wakes_per_s": statistics.median(woken),
        "ms_per_wake_of_a_plain_script": statistics.median(cost_of_wake) * 1e3,
        "script_slowdown": statistics.median(slowdowns),
    }
    print(json.dumps({"system": "mpitask", "case": "idle", "n": options.ranks, **result}), flush=True)


if __name__ == "__main__":
    main()
