"""Figures and tables of the doctor's report."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from vla.doctor.findings import Summary
from vla.doctor.views import DatasetView

_SHEET_EPISODES, _SHEET_FRAMES, _SIDE = 8, 8, 96


def ranges(dataset: DatasetView, summary: Summary) -> list[dict[str, str]]:
    """One table row per action dimension, in robot units."""
    pooled = np.concatenate([e.actions for e in summary.episodes])
    rows = []
    for k, name in enumerate(dataset.names):
        column = pooled[:, k][np.isfinite(pooled[:, k])]
        q01, q50, q99 = np.quantile(column, [0.01, 0.5, 0.99])
        figures = {
            "min": column.min(),
            "q01": q01,
            "median": q50,
            "q99": q99,
            "max": column.max(),
            "std": column.std(),
        }
        kind = "binary" if name in dataset.binary else ""
        rows.append({"dim": name, "": kind, **{n: f"{v:.4g}" for n, v in figures.items()}})
    return rows


def contact_sheet(summary: Summary) -> bytes:
    """PNG with evenly spaced frames of some episodes, one row per episode and camera."""
    usable = [e for e in summary.episodes if e.cameras]
    episodes = usable[:: max(1, len(summary.episodes) // _SHEET_EPISODES)][:_SHEET_EPISODES]
    rows = [(e, c) for e in episodes for c in e.cameras]
    cell = _SIDE + 2
    canvas = Image.new("RGB", (_SHEET_FRAMES * cell, max(1, len(rows)) * cell), "white")
    for y, (episode, camera) in enumerate(rows):
        steps = np.linspace(0, len(episode.actions) - 1, _SHEET_FRAMES).round().astype(int)
        for x, image in enumerate(episode.images(camera, np.unique(steps).tolist())):
            small = Image.fromarray(image).resize((_SIDE, _SIDE))
            canvas.paste(small, (x * cell, y * cell))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def histograms(dataset: DatasetView, summary: Summary) -> bytes:
    """PNG with a histogram of every action dimension and of the episodes' lengths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pooled = np.concatenate([e.actions for e in summary.episodes])
    series = [(n, pooled[:, k], "C0") for k, n in enumerate(dataset.names)]
    lengths = np.array([len(e.actions) for e in summary.episodes])
    series.append(("rows per episode", lengths, "C1"))
    columns = min(6, len(series))
    rows = -(-len(series) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.4 * columns, 1.9 * rows), constrained_layout=True, squeeze=False
    )
    for axis, (title, values, colour) in zip(axes.flat, series, strict=False):
        axis.hist(values[np.isfinite(values)], bins=40, color=colour)
        axis.set_title(title, fontsize=8)
        axis.set_yticks([])
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right", "left"]].set_visible(False)
    for axis in axes.flat[len(series) :]:
        axis.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    return buffer.getvalue()
