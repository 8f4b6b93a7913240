"""A result for people."""

from __future__ import annotations

from typing import Any


def of(report: dict[str, Any]) -> str:
    """The simulated job in a few lines."""
    tasks, spent = report["tasks"], report["time"]
    lines = [
        f"simulated: {report['workers']:,} workers on {report['nodes']:,} nodes, fan-out {report['fanout']}, "
        f"{tasks['submitted']:,} tasks of {report['options']['task_seconds']:g} s ({report['options']['shape']}), "
        f"seed {report['seed']}",
        f"  efficiency         {report['efficiency']:.2%} (simulated)",
        f"  makespan           {report['makespan_s']:.6g} s (simulated)",
        f"  tasks per second   {report['tasks_per_s']:,.0f} (simulated)",
        f"  start-up           {report['startup_s']:.6g} s until all workers were known to the root (simulated)",
        f"  root's thread      {report['root_utilisation']:.2%} busy",
        f"  workers' time      {spent['workers']['running']:.2%} tasks, {spent['workers']['overhead']:.2%} overhead, "
        f"{spent['workers']['idle']:.2%} idle",
        f"  agents' threads    {spent['agents_cpu']['busy']:.2%} busy on average",
        f"  frames             {spent['network']['mean_flight_us']:.4g} us under way, "
        f"{spent['network']['mean_wait_us']:.4g} us until taken, on average",
    ]
    ends = [f"{tasks[name]:,} {name.replace('_', ' ')}" for name in tasks if name != "submitted" and tasks[name]]
    lines.append(f"  tasks              {', '.join(ends)}")
    if report["nodes_killed"]:
        lines.append(f"  deaths             {report['nodes_killed']:,} nodes, {report['workers_left']:,} workers left")
    lines.append("  level     ranks   workers  busy  busiest    frames/s      bytes/s  longest queue")
    for depth, level in enumerate(report["levels"]):
        lines.append(
            f"  {depth:5d} {level['ranks']:9,} {level['workers']:9,} {level['utilisation']:5.1%} "
            f"{level['busiest_utilisation']:8.1%} {level['frames_per_s']:11,.0f} {level['bytes_per_s']:12,.0f} "
            f"{level['max_queue']:14,}"
        )
    wall = report["wall"]
    lines.append(f"  calibration: {report['calibration']['machine']}")
    lines.append(f"  (the simulation itself took {wall['seconds']:.1f} s and {wall['memory_mb']:,.0f} MB)")
    return "\n".join(lines)
