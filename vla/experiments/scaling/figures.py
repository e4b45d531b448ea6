"""Figures of a ladder: loss against size and compute, success against size and loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla.evaluation.statistics import wilson
from vla.experiments.scaling.analysis import AMOUNTS, Fits, largest_error
from vla.experiments.scaling.forms import FORMS


def axes_of(title: str, x: str, y: str) -> tuple[Any, Any]:
    """A new figure and its axis, with title and labels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.2, 3.8), constrained_layout=True)
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _band(axis: Any, x: np.ndarray, curves: list[np.ndarray], colour: Any) -> None:
    low, high = np.percentile(np.stack(curves), [2.5, 97.5], axis=0)
    axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def _colours(values: np.ndarray) -> dict[float, Any]:
    """A colour for every value, dark for small ones."""
    import matplotlib as mpl

    levels = sorted(set(values.tolist()))
    return {
        v: mpl.colormaps["viridis"](0.1 + 0.75 * k / max(1, len(levels) - 1))
        for k, v in enumerate(levels)
    }


def _parameters(n: float) -> str:
    """A number of parameters with its unit."""
    return f"{n / 1e6:.1f}M" if n >= 1e6 else f"{n / 1e3:.0f}k"


def _by_size(axis: Any, n: np.ndarray) -> None:
    """A logarithmic axis with a tick at every size."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(sorted(set(n.tolist()))))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _parameters(v)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.tick_params(axis="x", labelsize=9)


def loss_by_size(fits: Fits) -> Any:
    """Runs, and the law with its 95 % band for every amount of data; a star for held-out runs."""
    runs = fits.runs
    figure, axis = axes_of(
        "Validation loss of the robot's actions",
        "parameters without embeddings",
        "validation loss",
    )
    line = np.geomspace(runs.n.min() / 1.4, runs.n.max() * 1.4, 80)
    for d, colour in _colours(runs.d).items():
        own = (runs.d == d) & ~fits.held_out
        axis.scatter(
            runs.n[own],
            runs.loss[own],
            color=colour,
            s=26,
            zorder=3,
            label=f"{d:,.0f} {AMOUNTS[fits.amount][1]}",
        )
        axis.plot(line, fits.curve(line, d), color=colour, lw=1.4)
        _band(axis, line, [curve(line, d) for curve in fits.band], colour)
    largest = runs.where(fits.held_out)
    axis.scatter(
        largest.n,
        largest.loss,
        marker="*",
        s=150,
        color="crimson",
        edgecolor="white",
        zorder=4,
        label="held out",
    )
    _by_size(axis, runs.n)
    _log_loss(axis)
    axis.legend(fontsize=7, frameon=False, title=_caption(fits), title_fontsize=7)
    return figure


def _caption(fits: Fits) -> str:
    """The form with its numbers, its errors on held-out runs, and what the band is."""
    left_out = fits.errors[fits.form]
    numbers = ", ".join(
        f"{k} {v:.3g}" for k, v in vars(fits.curve).items() if k in ("alpha", "beta", "b", "c")
    )
    tested = f"left-out runs {100 * left_out:.1f} %, " if np.isfinite(left_out) else ""
    return (
        f"{fits.form}: {FORMS[fits.form].formula}\n{numbers}\n"
        f"error: {tested}largest run {largest_error(fits, fits.form):+.1f} %\n"
        "band: 95 %, bootstrap of residuals"
    )


def _log_loss(axis: Any, side: str = "y") -> None:
    """A logarithmic x or y axis of losses with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set(**{f"{side}scale": "log"})
    ruler = getattr(axis, f"{side}axis")
    ruler.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
    ruler.set_major_formatter(ScalarFormatter())
    ruler.set_minor_formatter(NullFormatter())


def frontier(fits: Fits) -> Any:
    """Loss of the runs against compute, and the law's lowest loss for every budget."""
    runs = fits.runs
    figure, axis = axes_of("Loss against training compute", "FLOPs", "validation loss")
    for n, colour in _colours(runs.n).items():
        own = runs.where(runs.n == n)
        axis.scatter(own.flops, own.loss, color=colour, s=20, label=_parameters(n))
        costs = sorted(set(own.flops.tolist()))
        means = [own.loss[own.flops == c].mean() for c in costs]  # over seeds
        axis.plot(costs, means, color=colour, lw=0.8)
    if min(fits.law.A, fits.law.B) > 0 and fits.amount == "samples":
        per_sample = float(np.median(runs.flops / (runs.n * runs.d)))
        budget = np.geomspace(runs.flops.min(), runs.flops.max() * 2, 60)
        best = fits.law.optimal_n(budget, per_sample)
        axis.plot(
            budget,
            fits.law(best, budget / (per_sample * best)),
            "k--",
            lw=1.2,
            label="compute-optimal (power law)",
        )
    axis.set_xscale("log")
    _log_loss(axis)
    axis.legend(fontsize=8, frameon=False, title="parameters", title_fontsize=8)
    return figure


def success_by_size(fits: Fits) -> Any:
    """Success of the runs with Wilson intervals; curve and 95 % band at the most data."""
    runs = fits.runs
    figure, axis = axes_of(
        "Success in closed loop", "parameters without embeddings", "success (95 % Wilson interval)"
    )
    levels = _colours(runs.d)
    for k, (d, colour) in enumerate(levels.items()):
        own = np.flatnonzero(runs.d == d)
        share = runs.wins[own] / runs.episodes[own]
        ends = np.array(
            [
                wilson(int(w), int(e))
                for w, e in zip(runs.wins[own], runs.episodes[own], strict=True)
            ]
        )
        shifted = runs.n[own] * 1.05 ** (k - (len(levels) - 1) / 2)
        axis.errorbar(
            shifted,
            share,
            yerr=np.abs(ends.T - share),
            fmt="o",
            color=colour,
            ms=4.5,
            lw=1,
            capsize=2,
            label=f"{d:,.0f} {AMOUNTS[fits.amount][1]}",
        )
    assert fits.success is not None
    line = np.linspace(np.log10(runs.n.min()) - 0.1, np.log10(runs.n.max()) + 0.1, 80)
    colour = levels[float(runs.d.max())]
    axis.plot(10**line, fits.success(line), color=colour, lw=1.4)
    _band(axis, 10**line, [c(line) for c in fits.curves], colour)
    _by_size(axis, runs.n)
    axis.set_ylim(-0.02, 1.02)
    caption = "curve: most data; band: 95 %, bootstrap"
    axis.legend(fontsize=8, frameon=False, title=caption, title_fontsize=7)
    return figure


def success_by_loss(fits: Fits) -> Any:
    """Success of every run against its loss, and the fitted curve."""
    runs = fits.runs
    figure, axis = axes_of(
        "Success against validation loss", "validation loss", "success (95 % Wilson interval)"
    )
    ends = np.array([wilson(int(w), int(e)) for w, e in zip(runs.wins, runs.episodes, strict=True)])
    share = runs.wins / runs.episodes
    axis.errorbar(
        runs.loss, share, yerr=np.abs(ends.T - share), fmt="o", color="C0", ms=4.5, lw=1, capsize=2
    )
    assert fits.by_loss is not None
    line = np.linspace(runs.loss.min(), runs.loss.max(), 80)
    axis.plot(line, fits.by_loss(line), color="C1", lw=1.4)
    _band(axis, line, [c(line) for c in fits.loss_curves], "C1")
    label = f"logistic: {fits.by_loss.intercept:.3g} {fits.by_loss.slope:+.3g} x loss"
    axis.plot([], [], color="C1", label=f"{label}\nband: 95 %, bootstrap of runs and episodes")
    _log_loss(axis, "x")
    axis.legend(fontsize=8, frameon=False)
    axis.set_ylim(-0.02, 1.02)
    return figure


def draw(fits: Fits, out: Path) -> list[Path]:
    """Write every figure that the results allow as PNG; returns the paths."""
    import matplotlib.pyplot as plt

    figures = {"loss_by_size": loss_by_size, "frontier": frontier}
    if fits.success is not None:
        figures |= {"success_by_size": success_by_size, "success_by_loss": success_by_loss}
    paths = []
    for name, make in figures.items():
        figure = make(fits)
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
        plt.close(figure)
    return paths
