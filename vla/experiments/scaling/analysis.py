"""Fits of a ladder: the loss law, success against size and against loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla.experiments.scaling.fit import Law, bootstrap, fit, interval
from vla.experiments.scaling.success import Logistic, bootstrap_success, fit_success

ROUNDS = 200  # bootstrap rounds
FIT = ("quantity", "value", "low", "high")  # columns of ``fit.csv``


@dataclass(frozen=True)
class Runs:
    """Finished runs as columns.

    ``n``: parameters without embeddings; ``d``: robot samples; ``loss``: validation loss of the
    actions in nats a token; ``wins`` of ``episodes``: over all tasks.
    """

    name: list[str]
    size: list[str]
    n: np.ndarray
    d: np.ndarray
    loss: np.ndarray
    flops: np.ndarray
    wins: np.ndarray
    episodes: np.ndarray
    seed: np.ndarray

    def where(self, kept: np.ndarray) -> Runs:
        """The runs that a mask (runs,) selects."""
        index = np.flatnonzero(kept)
        own: dict[str, Any] = {
            k: v[index] if isinstance(v, np.ndarray) else [v[i] for i in index]
            for k, v in vars(self).items()
        }
        return Runs(**own)


def as_runs(rows: list[dict[str, str]]) -> Runs:
    """Runs of a ladder's rows, which have one row for every task."""
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["run"], []).append(row)
    first = [g[0] for g in groups.values()]

    def column(name: str) -> np.ndarray:
        return np.array([float(r[name]) for r in first])

    def total(name: str) -> np.ndarray:
        return np.array([sum(float(r[name]) for r in g) for g in groups.values()])

    return Runs(
        list(groups),
        [r["size"] for r in first],
        column("parameters_without_embeddings"),
        column("robot_samples"),
        column("val_loss_robot"),
        column("flops"),
        total("wins"),
        total("episodes"),
        column("seed"),
    )


@dataclass(frozen=True)
class Fits:
    """The loss law and the success curves of a ladder; no curves if no episodes were run."""

    runs: Runs
    held_out: np.ndarray  # (runs,) bool: the runs with the most FLOPs, left out of the law's fit
    law: Law
    laws: list[Law]  # bootstrap
    success: Logistic | None = None  # against log10 parameters, at the most data
    curves: tuple[Logistic, ...] = ()  # bootstrap
    by_loss: Logistic | None = None  # success against loss
    loss_curves: tuple[Logistic, ...] = ()  # bootstrap


def fit_all(rows: list[dict[str, str]], rounds: int = ROUNDS) -> Fits:
    """Law and curves of a ladder's rows, with ``rounds`` bootstrap rounds.

    Raises:
        ValueError: too few runs for a law, see ``vla.experiments.scaling.fit``.
    """
    runs = as_runs(rows)
    held_out = runs.flops == runs.flops.max(initial=0.0)  # the largest run, all its seeds
    fitted = runs.where(~held_out)
    law = fit(fitted.n, fitted.d, fitted.loss)
    laws = bootstrap(fitted.n, fitted.d, fitted.loss, rounds)
    if not runs.episodes.all():
        return Fits(runs, held_out, law, laws)
    most = runs.where(runs.d == runs.d.max())
    x = np.log10(most.n)
    return Fits(
        runs,
        held_out,
        law,
        laws,
        fit_success(x, most.wins, most.episodes),
        tuple(bootstrap_success(x, most.wins, most.episodes, rounds)),
        fit_success(runs.loss, runs.wins, runs.episodes),
        tuple(bootstrap_success(runs.loss, runs.wins, runs.episodes, rounds)),
    )


def fit_rows(fits: Fits) -> list[dict[str, str]]:
    """The quantities of ``fit.csv`` with their 95 % bootstrap intervals."""
    law, runs = fits.law, fits.runs
    largest = runs.where(fits.held_out)
    n, d = largest.n[0], largest.d[0]
    predicted, measured = float(law(n, d)), float(largest.loss.mean())
    rows = [
        _row(k, getattr(law, k), [getattr(other, k) for other in fits.laws])
        for k in ("E", "A", "B", "alpha", "beta")
    ]
    rows += [
        _row("fitted runs", int((~fits.held_out).sum())),
        _row("held-out loss, predicted", predicted, [float(o(n, d)) for o in fits.laws]),
        _row("held-out loss, measured", measured),
        _row("error of the prediction, %", 100 * (predicted / measured - 1)),
    ]
    if min(law.A, law.B) > 0:
        budget = float(runs.flops.max())
        best = law.optimal_n(budget, float(np.median(runs.flops / (runs.n * runs.d))))
        rows += [
            _row("exponent of the compute-optimal size", law.beta / (law.alpha + law.beta)),
            _row("compute-optimal parameters at the largest budget", float(best)),
        ]
    if fits.success is not None and fits.by_loss is not None:
        tenfold = [float(np.exp(c.slope)) for c in fits.curves]
        lower = [float(np.exp(-0.1 * c.slope)) for c in fits.loss_curves]
        rows += [
            _row("odds factor of ten times the parameters", np.exp(fits.success.slope), tenfold),
            _row("odds factor of 0.1 less loss", np.exp(-0.1 * fits.by_loss.slope), lower),
        ]
    return rows


def _row(quantity: str, value: float, resampled: Sequence[float] = ()) -> dict[str, str]:
    ends = interval(resampled) if resampled else None
    low, high = (f"{v:.3g}" for v in ends) if ends else ("", "")
    digits = 4 if quantity.startswith("held-out") else 3
    return {"quantity": quantity, "value": f"{value:.{digits}g}", "low": low, "high": high}
