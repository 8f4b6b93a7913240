"""The examples run as their texts say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.processes import ROOT, Launcher, MpiStack

EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES / "landuse"))

import steps  # noqa: E402


def test_hello(launcher: Launcher) -> None:
    assert launcher.run(EXAMPLES / "hello.py").out == "hello, world!\n"


def test_montecarlo(launcher: Launcher, mpich: MpiStack) -> None:
    assert launcher.run(EXAMPLES / "montecarlo.py", n=3, mpi=mpich).out == "0.3636\n"


@pytest.mark.long
def test_montecarlo_without_mpi(launcher: Launcher) -> None:
    assert launcher.run(EXAMPLES / "montecarlo.py").out == "0.3636\n"


@pytest.mark.writes
def test_landuse_gives_the_same_bytes_everywhere(launcher: Launcher, mpich: MpiStack) -> None:
    script = EXAMPLES / "landuse" / "run.py"
    ways: dict[str, dict[str, object]] = {"serial": {"args": ["--serial"]}, "local": {}, "mpi": {"n": 3, "mpi": mpich}}
    files = {}
    for name, options in ways.items():
        args = [*options.pop("args", []), "--out", name]  # type: ignore[misc]
        result = launcher.run(script, args=args, **options)
        assert result.rc == 0, result.err
        assert f"{name}/landuse.png\n{name}/landuse.csv\n" in result.out
        files[name] = [(launcher.folder / name / f"landuse.{kind}").read_bytes() for kind in ("png", "csv")]
    assert files["serial"] == files["local"] == files["mpi"]
    assert files["serial"][0].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--tile", "0"], "--tile 0: give at least 8"),
        (["--image", "nosuch.png"], "check --image and --out"),
        (["--out", "/proc/nowhere"], "check --image and --out"),
    ],
)
def test_landuse_wrong_input(launcher: Launcher, args: list[str], text: str) -> None:
    result = launcher.run(EXAMPLES / "landuse" / "run.py", args=args)
    assert result.rc == 2
    assert text in result.err
    assert "Traceback" not in result.err


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 90))
def test_tiles_cover_the_image_once(height: int, width: int, size: int) -> None:
    covered = np.zeros((height, width), dtype=int)
    for top, left, bottom, right in steps.tile_boxes(height, width, size):
        assert bottom > top
        assert right > left
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_classes_of_flat_tiles() -> None:
    sky = np.full((16, 16, 3), (200, 228, 250), dtype=np.uint8)
    assert set(steps.classify(sky).ravel()) == {steps.CLASSES.index("sky")}
    assert steps.colourise(steps.classify(sky)).shape == (16, 16, 3)


@pytest.mark.writes
@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("hello.py", r"hello, world!\n"),
        ("hello_bash.py", r"Hello World!\n"),
        ("random_total.py", r"total: \d+\n"),
        ("pi.py", r"3\.1[34]\d\n"),
        ("sort_numbers.py", r"\['38', '49', .*, '970'\]\n"),
        ("mapreduce.py", r"\[\('\w+', \d+\), \('\w+', \d+\), \('\w+', \d+\)\]\n"),
        ("landuse/pipeline.py", r"\{'sky': 1\d{5}, .*\}\n.*/landuse-pipeline/landuse.png\n"),
    ],
)
def test_small_examples(launcher: Launcher, name: str, pattern: str) -> None:
    result = launcher.run(EXAMPLES / name, options=["--workers", "2"])
    assert result.rc == 0, result.err
    assert re.fullmatch(pattern, result.out), result.out


def test_every_example_is_tested() -> None:
    known = {"hello.py", "hello_bash.py", "random_total.py", "pi.py", "sort_numbers.py", "mapreduce.py"}
    known |= {"montecarlo.py", "landuse"}
    assert {path.name for path in Path(EXAMPLES).iterdir() if path.name != "__pycache__"} == known
