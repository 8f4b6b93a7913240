"""The programs that measure run, and what they write makes sense. How fast anything is, is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import ROOT, Launcher

BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import common  # noqa: E402
import graphs  # noqa: E402
import metg  # noqa: E402


def run(launcher: Launcher, program: str, *args: str) -> tuple[dict[str, Any], str]:
    json_file = launcher.folder / "found.json"
    command = [sys.executable, str(BENCHMARKS / program), "--json", str(json_file), *args]
    result = launcher.start("", command=command).finish(90)
    assert result.rc == 0, result.err
    return json.loads(json_file.read_text()), result.out


@pytest.mark.long
@pytest.mark.writes
def test_compare(launcher: Launcher) -> None:
    options = ["--repeat", "1", "--share", "0.002", "--systems", "mpitask", "ppe"]
    report, out = run(launcher, "compare.py", *options)
    assert not report["failures"]
    assert report["results"].keys() == {"mpitask", "ppe"}
    assert report["machine"]["packages"].keys() >= {"cffi", "numpy"}
    for name, found in report["results"].items():
        assert ("chain.us_per_link" in found) == (name == "mpitask")  # what pools cannot express is left out
        assert 10 < found["throughput.tasks_per_s"]["median"] < 1e8
        assert 0.5 < found["round_trip.median_us"]["median"] < 1e6
        assert 1e-6 < found["array.gb_per_s"]["median"] < 1e3
    better = report["ratios"]["ppe"]["throughput.tasks_per_s"]
    rates = [report["results"][name]["throughput.tasks_per_s"]["median"] for name in ("mpitask", "ppe")]
    assert better == pytest.approx(rates[0] / rates[1])
    assert "| | mpitask, local | ProcessPoolExecutor |" in out.replace("|  |", "| |")


@pytest.mark.long
@pytest.mark.writes
def test_taskbench(launcher: Launcher) -> None:
    options = ["--rounds", "1", "--repeat", "1", "--seconds", "0.01", "--width", "4"]
    options += ["--systems", "mpitask", "--patterns", "stencil_1d"]
    report, out = run(launcher, "taskbench.py", *options)
    assert not report["failures"]
    found = report["rounds"]["mpitask"][0]
    assert found.keys() == {"stencil_1d"}
    for record in found.values():
        assert 0.5 < record["overhead_us"] <= 1000
        assert record["metg_us"] is None or 1 < record["metg_us"] < 1e6
        for point in record["points"]:
            assert 0 < point["efficiency"] < 10
            assert 1e6 < point["peak_per_s"] < 1e13
            assert point["granularity_us"] > 0
    assert "METG(50 %)" in out


@pytest.mark.long
@pytest.mark.writes
def test_what_is_not_installed_is_listed_as_absent(launcher: Launcher) -> None:
    bare = launcher.folder / "python"  # an interpreter without any packages
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    options = ["--python", str(bare), "--repeat", "1", "--share", "0.001", "--systems", "parsl", "dask", "ray"]
    report, out = run(launcher, "compare.py", *options)
    assert report["absent"] == ["parsl", "dask", "ray"]
    assert report["machine"]["peers"]["packages"] == {}
    assert not report["results"]
    assert "not installed: Parsl (HTEX), Dask, Ray" in out


def test_a_command_that_fails_or_takes_too_long_leaves_nothing_behind() -> None:
    with pytest.raises(common.CommandError, match="oh no"):
        common.run([sys.executable, "-c", "raise SystemExit('oh no')"], 60)
    orphan = "import os, time; print('{}', flush=True); os.fork() or os.setsid(); time.sleep(600)"
    with pytest.raises(common.CommandError, match="has not ended within") as caught:
        common.run([sys.executable, "-c", orphan], 2)
    assert caught.value.records in ([], [{}])  # what it had printed by then
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert orphan not in running


@pytest.mark.parametrize("pattern", graphs.PATTERNS)
def test_a_graph_depends_on_columns_that_are_there(pattern: str) -> None:
    for width in (1, 2, 5, 16):
        for step in range(1, 12):
            there = range(graphs.width_at(pattern, width, step - 1))
            for column in range(graphs.width_at(pattern, width, step)):
                found = graphs.dependencies(pattern, width, step, column)
                assert list(found) == sorted(set(found))
                assert all(i in there for i in found)
                assert (column in found) or pattern in ("trivial", "tree")


def test_a_task_checks_what_it_gets() -> None:
    assert graphs.dependencies("stencil_1d", 4, 0, 2) == ()
    assert graphs.dependencies("stencil_1d", 4, 3, 2) == (1, 2, 3)
    assert graphs.dependencies("fft", 8, 3, 0) == (0, 4)
    assert graphs.task("stencil_1d", 4, 3, 2, 10, 9, 10, 11) == 14
    for wrong in ((9, 10), (9, 10, 12), (10, 9, 11)):
        with pytest.raises(graphs.WrongInputError):
            graphs.task("stencil_1d", 4, 3, 2, 10, *wrong)


def test_metg_lies_between_the_points_around_half_of_the_peak() -> None:
    def point(granularity: float, efficiency: float) -> dict[str, float]:
        return {"granularity_us": granularity, "efficiency": efficiency}

    assert metg.crossing([point(10, 0.4), point(40, 0.6)]) == pytest.approx(20)
    assert metg.crossing([point(10, 0.4), point(20, 0.6), point(40, 0.4), point(90, 0.5)]) == pytest.approx(90)
    assert metg.crossing([point(10, 0.1), point(20, 0.2)]) is None
    assert metg.crossing([point(10, 0.7)]) is None


def test_the_measured_files_are_whole() -> None:
    for path in sorted(Path(BENCHMARKS / "measured").glob("*.json")):
        report = json.loads(path.read_text())
        assert report["machine"]["cores"] >= 1, path
        assert report["seconds"] > 0, path


@pytest.mark.writes
def test_values(launcher: Launcher) -> None:
    report, out = run(launcher, "values.py", "--tasks", "20", "--bytes", "30000", "--rounds", "2")
    assert set(report["seconds"]) == {f"{g}, {s}" for g in ("diamond", "reduce") for s in ("mpitask", "process pool")}
    assert all(len(found) == 2 and min(found) > 0 for found in report["seconds"].values())
    assert out.count(" s  (") == 4
