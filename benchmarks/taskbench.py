"""Measures METG(50 %) of mpitask and its peers on the graphs of Task Bench, in turn, and writes a table.

    python benchmarks/taskbench.py --python /path/to/peers/bin/python --json build/taskbench.json

What METG is, and how it is found: metg.py, which measures one system in a process of its own. What `--python` is for:
compare.py. Systems take turns; the table shows the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from common import (
    HERE,
    PY,
    SYSTEMS,
    Circumstances,
    CommandError,
    cell,
    end_in_order,
    machine,
    markdown,
    prefixes,
    run,
    summary,
    write_json,
)
from graphs import PATTERNS

USUAL = ["mpitask", "mpiexec", "ppe", "parsl", "dask", "ray"]
LABELS = {
    "trivial": "trivial: no dependencies",
    "no_comm": "no_comm: its own column",
    "stencil_1d": "stencil_1d: 3 neighbours",
    "fft": "fft: 3, ever farther apart",
    "tree": "tree: 1, fanning out",
    "random": "random: 1 to 5 of 5",
    "nearest": "nearest: 5 neighbours",
}


def table(results: dict[str, dict[str, Any]], better: dict[str, dict[str, float]], names: list[str]) -> str:
    rows = []
    for pattern, label in LABELS.items():
        row = [label]
        for name in names:
            row.append(cell(results.get(name, {}).get(pattern), better.get(name, {}).get(pattern)))
        if any(pattern in found for found in results.values()):
            rows.append(row)
    return markdown(["METG(50 %), µs", *[SYSTEMS[name] for name in names]], rows)


def ratios(rounds: dict[str, list[dict[str, dict[str, Any]]]]) -> dict[str, dict[str, float]]:
    """How many times smaller mpitask's was: medians over the rounds that have both."""
    found: dict[str, dict[str, float]] = {}
    for name, theirs in rounds.items():
        for pattern in PATTERNS:
            samples = [
                b[pattern]["metg_us"] / a[pattern]["metg_us"]
                for a, b in zip(rounds.get("mpitask", []), theirs, strict=False)
                if all(r.get(pattern, {}).get("metg_us") for r in (a, b))
            ]
            if samples and name != "mpitask":
                found.setdefault(name, {})[pattern] = statistics.median(samples)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=PY, help="interpreter that has Parsl, Dask and Ray (default: this one)")
    parser.add_argument("--json", type=Path, default=Path("build/taskbench.json"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", nargs="*", choices=list(SYSTEMS), default=USUAL, metavar="SYSTEM")
    parser.add_argument("--patterns", nargs="*", choices=PATTERNS, default=list(PATTERNS), metavar="PATTERN")
    parser.add_argument("--width", type=int, default=16, help="columns of a graph (default 16)")
    parser.add_argument("--seconds", type=float, default=0.1, help="about how long a measurement takes (default 0.1)")
    parser.add_argument("--repeat", type=int, default=9, help="of a grain; the shortest counts (default 9)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one system in one round")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for a quiet machine before each turn")
    options = parser.parse_args()
    arguments = [f"--{name}={getattr(options, name)}" for name in ("width", "seconds", "repeat")]
    end_in_order()
    commands = prefixes(options.systems, options.python)
    absent = [name for name in options.systems if name not in commands]
    rounds: dict[str, list[dict[str, dict[str, Any]]]] = {name: [] for name in commands}
    failures: dict[str, list[str]] = {}
    circumstances = Circumstances()
    for turn in range(options.rounds):
        for name, prefix in commands.items():
            print(f"round {turn + 1}/{options.rounds}: {SYSTEMS[name]}", file=sys.stderr, flush=True)
            system = "mpitask" if name == "mpiexec" else name
            command = [*prefix, str(HERE / "metg.py"), *arguments, system, *options.patterns]
            circumstances.wait(options.wait)
            circumstances.note()
            try:
                records = run(command, options.timeout)
            except CommandError as error:
                print(error, file=sys.stderr)
                failures.setdefault(name, []).append(str(error))
                records = error.records
            rounds[name].append({record.pop("case"): record for record in records})
    results: dict[str, dict[str, Any]] = {}
    for name, found in rounds.items():
        for pattern in options.patterns:
            samples = [r[pattern]["metg_us"] for r in found if r.get(pattern, {}).get("metg_us")]
            if samples:
                results.setdefault(name, {})[pattern] = summary(samples)
    better = ratios(rounds)
    report = {
        "machine": machine(options.python),
        **circumstances.report(),
        "graph": {"width": options.width, "seconds": options.seconds, "repeat": options.repeat},
        "absent": absent,
        "failures": failures,
        "metg_us": results,
        "ratios": better,
        "rounds": rounds,
    }
    write_json(options.json, report)
    print(table(results, better, list(commands)))
    if absent:
        print(f"not installed: {', '.join(SYSTEMS[name] for name in absent)}")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
