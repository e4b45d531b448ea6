"""Learning curves of training runs as series, table and figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Panel title -> metrics, without the stage.
PANELS = {
    "robot loss": ["loss/robot"],
    "web loss": ["loss/web"],
    "token accuracy": ["action_token_accuracy", "web_token_accuracy"],
    "L1 error of the arm (cm)": ["l1/dx", "l1/dy", "l1/dz"],
}


def read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Metric -> (step, value) pairs of a run.

    Each start of a run writes its own file. If two files have the same step, the later file counts.
    A last row that a crash has cut off is left out.

    Args:
        run: folder of the run, or one CSV file.
    """
    series: dict[str, dict[int, float]] = {}
    for path in [run] if run.is_file() else sorted(run.glob("csv*/metrics.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if None in row.values():
                    continue
                for name, value in row.items():
                    if name not in ("step", "epoch") and value:
                        series.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in series.items()}


def curves_table(run: Path) -> list[dict[str, str]]:
    """All metrics of a run, one row for each step, with six significant digits."""
    table = {name: dict(points) for name, points in read_curves(run).items()}
    steps = sorted({step for points in table.values() for step in points})
    rows = []
    for step in steps:
        cells = {n: f"{p[step]:.6g}" if step in p else "" for n, p in table.items()}
        rows.append({"step": str(step)} | cells)
    return rows


def plot_curves(runs: Mapping[str, Path], out: Path | None = None) -> bytes:
    """Losses, accuracies and errors of several runs as one PNG; also written to ``out``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    size = (4.2 * len(PANELS), 3.2)
    figure, axes = plt.subplots(1, len(PANELS), figsize=size, constrained_layout=True)
    curves = {name: read_curves(run) for name, run in runs.items()}
    for axis, (title, metrics) in zip(axes, PANELS.items(), strict=True):
        for number, name in enumerate(runs):
            for k, metric in enumerate(metrics):
                colour = f"C{(number * len(metrics) + k) % 10}"
                label = f"{name} {metric.split('/')[-1]}" if len(metrics) > 1 else name
                _draw(axis, curves[name], metric, colour, label)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    if out is not None:
        out.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _draw(
    axis: Any,
    curves: dict[str, list[tuple[int, float]]],
    metric: str,
    colour: str,
    label: str,
) -> None:
    """Training as a thin line, validation as a thick line with the label."""
    factor = 100 if metric.startswith("l1/") else 1  # metres to centimetres
    styles: dict[str, dict[str, Any]] = {
        "train": {"lw": 0.9, "alpha": 0.55},
        "val": {"lw": 1.8, "label": label},
    }
    for stage, style in styles.items():
        points = curves.get(f"{stage}/{metric}", [])
        if points:
            steps, values = zip(*points, strict=True)
            axis.plot(steps, [factor * v for v in values], color=colour, **style)
