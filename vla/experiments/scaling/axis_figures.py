"""A figure of every further axis of a ladder: success of its runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla.evaluation.statistics import wilson
from vla.experiments.scaling.figures import axes_of

Rows = list[dict[str, str]]


def draw_axes(rows: Rows, out: Path) -> list[Path]:
    """Write ``axis_<name>.png`` for every axis with episodes; returns the paths.

    Each has the levels of the axis and the same size with all data, by distinct demonstrations.
    Two series: all tasks that a run has learned, and those that all these runs have learned.
    """
    import matplotlib.pyplot as plt

    paths = []
    for name in sorted({r["axis"] for r in rows} - {"data"}):
        runs = _runs_of(rows, name)
        if len(runs) < 2:
            continue
        common = set.intersection(*({r["task"] for r in own} for own in runs.values()))
        figure, axis = axes_of(
            f"Success by {name}, size {next(iter(runs.values()))[0]['size']}",
            f"{name}: level, with distinct demonstrations",
            "success (95 % Wilson interval)",
        )
        places = np.arange(len(runs))
        series = {"tasks of the run": None, f"the same {len(common)} tasks": common}
        for k, (label, tasks) in enumerate(series.items()):
            shares, ends = _shares(runs, tasks)
            spread = np.abs(np.array(ends).T - shares)
            axis.errorbar(
                places + 0.08 * k, shares, spread, fmt="o-", ms=4.5, lw=1, capsize=2, label=label
            )
        labels = [f"{level}\n{int(own[0]['demonstrations']):,}" for level, own in runs.items()]
        axis.set_xticks(places, labels)
        axis.set_ylim(-0.02, 1.02)
        axis.legend(fontsize=8, frameon=False)
        paths.append(out / f"axis_{name}.png")
        figure.savefig(paths[-1], dpi=150)
        plt.close(figure)
    return paths


def _runs_of(rows: Rows, name: str) -> dict[str, Rows]:
    """Level -> rows of all its seeds, fewest demonstrations first; the last has all the data."""
    own = [r for r in rows if r["axis"] == name and r["episodes"] not in ("", "0")]
    size = own[0]["size"] if own else ""
    same = [r for r in rows if r["axis"] == "data" and r["size"] == size and r["demonstrations"]]
    most = max((int(r["demonstrations"]) for r in same), default=0)
    own += [r for r in same if int(r["demonstrations"]) == most]
    found: dict[str, Rows] = {}
    for row in sorted(own, key=lambda r: int(r["demonstrations"])):
        found.setdefault(row["data"], []).append(row)
    return found


def _shares(
    runs: dict[str, Rows], tasks: set[str] | None
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Success of every level over its tasks (or ``tasks``), with intervals."""
    shares, ends = [], []
    for own in runs.values():
        kept = [r for r in own if tasks is None or r["task"] in tasks]
        wins, episodes = (sum(int(r[c]) for r in kept) for c in ("wins", "episodes"))
        shares.append(wins / max(1, episodes))
        ends.append(wilson(wins, episodes) if episodes else (0.0, 1.0))
    return np.array(shares), ends
