"""A picture of a result: workers that run a task over time, and how busy the levels of the tree were."""

from __future__ import annotations

import html
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from mpitask.errors import ConfigurationError

WIDTH, HEIGHT, LEFT, TOP = 720, 420, 70, 40


def check(path: Path) -> None:
    """Finds out before the simulation whether the picture can be drawn.

    Raises:
        ConfigurationError: the kind of picture is unknown, what draws it is missing, or there is no such directory.
    """
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--plot {path}: there is no directory {path.absolute().parent}")
    if path.suffix not in {".png", ".svg"}:
        raise ConfigurationError(f"--plot {path}: the name must end with .png or .svg")
    if path.suffix == ".png" and importlib.util.find_spec("matplotlib") is None:
        raise ConfigurationError(
            f"--plot {path}: PNG needs matplotlib: pip install 'mpitask[plot]' (an .svg needs nothing)"
        )


def draw(report: dict[str, Any], path: Path) -> None:
    """Writes the picture."""
    if path.suffix == ".svg":
        path.write_text(_svg(report))
        return
    pyplot = importlib.import_module("matplotlib.figure")
    figure = pyplot.Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 2])
    running = report["running"]
    upper.step([i * running["seconds"] for i in range(len(running["workers"]))], running["workers"], where="post")
    upper.set(xlabel="simulated seconds", ylabel="workers that run a task", title=_title(report), ylim=(0, None))
    levels = report["levels"]
    lower.bar([f"level {i}\n{x['ranks']:,} ranks" for i, x in enumerate(levels)], [x["utilisation"] for x in levels])
    lower.set(ylabel="engine threads busy (simulated)", ylim=(0, 1))
    figure.savefig(path, dpi=120)


def _title(report: dict[str, Any]) -> str:
    return (
        f"simulated: {report['workers']:,} workers, {report['tasks']['submitted']:,} tasks, "
        f"efficiency {report['efficiency']:.1%}"
    )


def _svg(report: dict[str, Any]) -> str:
    running, levels = report["running"], report["levels"]
    values = running["workers"] or [0]
    top = max(*values, report["workers"], 1)
    step = WIDTH / len(values)
    points = " ".join(
        f"{LEFT + (i + k) * step:.1f},{TOP + HEIGHT * (1 - value / top):.1f}"
        for i, value in enumerate(values)
        for k in (0, 1)
    )
    seconds = running["seconds"] * len(values)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 2 * LEFT} {HEIGHT + 140 + 22 * len(levels)}" '
        'font-family="sans-serif" font-size="13">',
        f'<text x="{LEFT}" y="24" font-size="15">{html.escape(_title(report))}</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
        f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>',
        f'<text x="{LEFT - 6}" y="{TOP + 10}" text-anchor="end">{top:,.0f}</text>',
        f'<text x="{LEFT - 6}" y="{TOP + HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{LEFT}" y="{TOP + HEIGHT + 18}">0 s</text>',
        f'<text x="{LEFT + WIDTH}" y="{TOP + HEIGHT + 18}" text-anchor="end">{seconds:.4g} simulated seconds</text>',
        f'<text x="{LEFT}" y="{TOP + HEIGHT + 44}">workers that run a task; below: how busy engine threads were</text>',
    ]
    for i, level in enumerate(levels):
        y = TOP + HEIGHT + 62 + 22 * i
        share = min(1.0, level["utilisation"])
        parts += [
            f'<text x="{LEFT}" y="{y + 13}">level {i}, {level["ranks"]:,} ranks</text>',
            f'<rect x="{LEFT + 200}" y="{y}" width="{400 * share:.1f}" height="16" fill="#c4722d"/>',
            f'<text x="{LEFT + 612}" y="{y + 13}">{share:.1%}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
