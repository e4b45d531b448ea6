"""Fits of a ladder: the loss law, success against size and against loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla.experiments.scaling.fit import Law, fit, interval
from vla.experiments.scaling.forms import FORMS, Curve, bootstrap, choose, left_out_error
from vla.experiments.scaling.success import Logistic, bootstrap_success, fit_success

ROUNDS = 200  # bootstrap rounds
FIT = ("quantity", "value", "low", "high")  # columns of ``fit.csv``
FORM = ("form", "loss", "numbers", "left-out error, %", "largest-run error, %", "used")
# What D is -> its column of the table, and its name in figures.
AMOUNTS = {
    "samples": ("robot_samples", "robot samples seen"),
    "demonstrations": ("demonstrations", "distinct demonstrations"),
}


@dataclass(frozen=True)
class Runs:
    """Finished runs over sizes and amounts of data, as columns.

    ``n``: parameters without embeddings; ``d``: amount of data, see ``AMOUNTS``;
    ``loss``: validation loss of the actions; ``wins`` of ``episodes``: over all tasks.
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


def as_runs(rows: list[dict[str, str]], amount: str = "samples") -> Runs:
    """Runs of a ladder's rows, which have one row for every task; those of its axes are left out.

    Raises:
        ValueError: a run lacks the amount of data.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["axis"] != "data":
            continue
        if not row[AMOUNTS[amount][0]]:
            raise ValueError(f"run {row['run']} has no {AMOUNTS[amount][0]}")
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
        column(AMOUNTS[amount][0]),
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
    held_out: np.ndarray  # (runs,) bool: the runs with the largest N x D, left out of all fits
    amount: str  # what D is, see ``AMOUNTS``
    law: Law  # the power law, from the other runs
    errors: dict[str, float]  # form -> error on left-out runs, see ``left_out_error``
    form: str  # the form with the smallest error
    curve: Curve  # this form
    curves_of: dict[str, Curve]  # every form
    laws: list[Law]  # bootstrap
    band: list[Curve]  # bootstrap of ``curve``
    success: Logistic | None = None  # against log10 parameters, at the most data
    curves: tuple[Logistic, ...] = ()  # bootstrap
    by_loss: Logistic | None = None  # success against loss
    loss_curves: tuple[Logistic, ...] = ()  # bootstrap


def fit_all(rows: list[dict[str, str]], rounds: int = ROUNDS, amount: str = "samples") -> Fits:
    """Law and curves of a ladder's rows, with ``rounds`` bootstrap rounds.

    Raises:
        ValueError: too few runs for a law, see ``vla.experiments.scaling.fit``.
    """
    runs = as_runs(rows, amount)
    product = runs.n * runs.d
    held_out = product == product.max(initial=0.0)  # the largest run, all its seeds
    fitted = runs.where(~held_out)
    columns = fitted.n, fitted.d, fitted.loss
    law = fit(*columns)
    laws = bootstrap(*columns, rounds, curve=law)
    curves: dict[str, Curve] = {
        name: law if kind.fit is fit else kind.fit(*columns) for name, kind in FORMS.items()
    }
    errors = {k: left_out_error(form, *columns, curves[k]) for k, form in FORMS.items()}
    form = choose(errors)
    band: list[Curve] = list(laws)
    if curves[form] is not law:
        band = bootstrap(*columns, rounds, form=form, curve=curves[form])
    fits = Fits(runs, held_out, amount, law, errors, form, curves[form], curves, laws, band)
    if not runs.episodes.all():
        return fits
    most = runs.where(runs.d == runs.d.max())
    x = np.log10(most.n)
    return replace(
        fits,
        success=fit_success(x, most.wins, most.episodes),
        curves=tuple(bootstrap_success(x, most.wins, most.episodes, rounds)),
        by_loss=fit_success(runs.loss, runs.wins, runs.episodes),
        loss_curves=tuple(bootstrap_success(runs.loss, runs.wins, runs.episodes, rounds)),
    )


def largest_error(fits: Fits, form: str) -> float:
    """Relative error of a form on the largest run, in % of the measured mean."""
    largest = fits.runs.where(fits.held_out)
    predicted = float(fits.curves_of[form](largest.n[0], largest.d[0]))
    return 100 * (predicted / float(largest.loss.mean()) - 1)


def form_rows(fits: Fits) -> list[dict[str, str]]:
    """The rows of ``forms.csv``: every form, its errors, and which one is used."""
    rows = []
    for name, form in FORMS.items():
        left_out = f"{100 * fits.errors[name]:.3g}" if np.isfinite(fits.errors[name]) else ""
        used = "yes" if name == fits.form else ""
        largest = f"{largest_error(fits, name):.3g}"
        cells = (name, form.formula, str(form.numbers), left_out, largest, used)
        rows.append(dict(zip(FORM, cells, strict=True)))
    return rows


def fit_rows(fits: Fits) -> list[dict[str, str]]:
    """The quantities of ``fit.csv`` with their 95 % bootstrap intervals."""
    law, runs = fits.law, fits.runs
    largest = runs.where(fits.held_out)
    n, d = largest.n[0], largest.d[0]
    predicted, measured = float(fits.curve(n, d)), float(largest.loss.mean())
    rows = [
        _row(k, getattr(law, k), [getattr(other, k) for other in fits.laws])
        for k in ("E", "A", "B", "alpha", "beta")
    ]
    rows += [
        _row("fitted runs", int((~fits.held_out).sum())),
        _row("held-out loss, predicted", predicted, [float(o(n, d)) for o in fits.band]),
        _row("held-out loss, measured", measured),
        _row("error of the prediction, %", 100 * (predicted / measured - 1)),
    ]
    if min(law.A, law.B) > 0 and fits.amount == "samples":
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
