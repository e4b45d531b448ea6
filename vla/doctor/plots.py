"""Figures and tables of the doctor's report."""

from __future__ import annotations

import io
import textwrap

import numpy as np
from PIL import Image

from vla.doctor.findings import Summary
from vla.doctor.ranges import finite_columns
from vla.doctor.views import DatasetView
from vla.errors import BadSample
from vla.evaluation.report import data_url

_SHEET_EPISODES, _SHEET_FRAMES = 8, 8
_SIDE = 200  # largest side of a frame, px


def ranges(dataset: DatasetView, summary: Summary) -> list[dict[str, str]]:
    """One table row per action dimension, in robot units."""
    rows = []
    columns = finite_columns([e.actions for e in summary.episodes], len(dataset.names))
    for name, column in zip(dataset.names, columns, strict=True):
        if not len(column):
            empty = dict.fromkeys(("min", "q01", "median", "q99", "max", "std"), "-")
            rows.append({"dim": name, "": "no finite value", **empty})
            continue
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


def frames(summary: Summary) -> list[tuple[str, list[tuple[str, str]]]]:
    """Evenly spaced frames of some episodes: heading -> pairs of a label and an image address.

    There is one heading for each episode and camera. Episodes that cannot be decoded have none.
    """
    usable = [e for e in summary.episodes if e.cameras]
    episodes = usable[:: max(1, len(usable) // _SHEET_EPISODES)][:_SHEET_EPISODES]
    found = []
    for episode in episodes:
        steps = np.linspace(0, len(episode.actions) - 1, _SHEET_FRAMES).round().astype(int)
        rows = np.unique(steps).tolist()
        for camera in episode.cameras:
            try:
                images = episode.images(camera, rows)
            except BadSample:  # only some episodes were decoded before
                continue
            heading = f"episode {episode.key}, camera {camera}: {episode.instruction}"
            labels = [f"row {row}, {row / episode.fps:.1f} s" for row in rows]
            found.append((heading, list(zip(labels, map(_small, images), strict=True))))
    return found


def _small(image: np.ndarray) -> str:
    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((_SIDE, _SIDE))
    picture.save(buffer, "JPEG", quality=85)
    return data_url(buffer.getvalue(), "jpeg")


def histograms(dataset: DatasetView, summary: Summary) -> list[tuple[str, str]]:
    """Name and image address of a histogram of every action dimension and of the lengths.

    Constant dimensions have none.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    columns_A = finite_columns([e.actions for e in summary.episodes], len(dataset.names))
    units = dataset.action_space.units
    series = [
        (name, unit, column, "C0")
        for name, unit, column in zip(dataset.names, units, columns_A, strict=True)
    ]
    lengths = np.array([len(e.actions) for e in summary.episodes])
    series.append(("length of the episodes", "rows", lengths, "C1"))
    figure, axis = plt.subplots(figsize=(2.8, 1.9), constrained_layout=True)
    found = []
    for name, unit, values, colour in series:
        axis.clear()
        # Numbers so large that their neighbours differ by more than a bin have no histogram.
        if not len(values) or np.ptp(values) < 1e-9 * np.abs(values).max() or not np.ptp(values):
            continue
        axis.hist(values, bins=40, color=colour)
        axis.set_title("\n".join(textwrap.wrap(name, 34)), fontsize=10)
        axis.set_xlabel(unit, fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_yticks([])
        axis.tick_params(labelsize=9)
        axis.spines[["top", "right", "left"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=140)
        found.append((f"histogram of {name} ({unit})", data_url(buffer.getvalue())))
    plt.close(figure)
    return found
