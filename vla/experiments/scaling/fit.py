"""The loss law L(N, D) = E + A / N^alpha + B / D^beta (arXiv 2203.15556, equation 2).

Variable projection: E, A and B are linear for given exponents, so only (alpha, beta) are searched.
The objective is Huber's loss of the residuals of log L (delta 1e-3, as in the paper), minimised by
iteratively reweighted least squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, nnls

from vla.utils.text import count

DELTA = 1e-3  # of log loss; larger residuals count linearly
EXPONENTS = (1e-3, 3.0)  # range of the search
_GRID = np.linspace(0.05, 1.5, 30)
_ROUNDS = 12  # reweighting rounds for one pair of exponents


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta; ``objective``: mean Huber loss of the fit."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float = 0.0

    def __call__(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Predicted loss."""
        return (
            self.E
            + self.A / np.asarray(n, float) ** self.alpha
            + self.B / np.asarray(d, float) ** self.beta
        )

    def optimal_n(self, compute: np.ndarray | float, per_sample: float) -> np.ndarray:
        """The N with the lowest loss for a budget of FLOPs (equation 4 of the paper).

        A run costs ``per_sample`` x N x D.

        Raises:
            ValueError: loss does not fall with N or with D.
        """
        if min(self.A * self.alpha, self.B * self.beta) <= 0:
            raise ValueError(
                "the fitted law does not fall with both parameters and data: "
                "no compute-optimal size"
            )
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return g * (np.asarray(compute, float) / per_sample) ** (
            self.beta / (self.alpha + self.beta)
        )


def undetermined(law: Law, n: np.ndarray, d: np.ndarray) -> list[str]:
    """What the runs with ``n`` parameters and ``d`` samples do not determine, one line each."""
    found = []
    terms = (("alpha", law.alpha, law.A, n, "size"), ("beta", law.beta, law.B, d, "data"))
    for name, exponent, factor, values, of in terms:
        if np.ptp(factor * values**-exponent) < DELTA * law(n, d).mean():
            found.append(f"the fitted loss does not fall with the {of} of the runs")
        elif not 1.05 * EXPONENTS[0] < exponent < 0.99 * EXPONENTS[1]:
            found.append(f"{name} is {exponent:.3g}, the end of its range, so it is not determined")
    if law.E <= 0:
        found.append("E is 0, so the lowest possible loss is not determined")
    return found


def _huber(residual: np.ndarray) -> np.ndarray:
    size = np.abs(residual)
    return np.where(size <= DELTA, 0.5 * residual**2, DELTA * (size - 0.5 * DELTA))


def _project(
    exponents: Sequence[float],
    n: np.ndarray,
    d: np.ndarray,
    loss: np.ndarray,
    rounds: int = _ROUNDS,
) -> tuple[float, np.ndarray]:
    """Mean Huber loss of log residuals and the best non-negative (E, A, B) for given exponents."""
    alpha, beta = exponents
    # powers relative to the medians, so that the columns have similar magnitudes
    scale = np.array([1.0, np.median(n) ** -alpha, np.median(d) ** -beta])
    columns = np.stack([np.ones_like(n), n**-alpha, d**-beta], 1) / scale
    weight, best, kept = 1.0 / loss, np.inf, np.zeros(3)
    for _ in range(rounds):
        found, _ = nnls(columns * weight[:, None], loss * weight)
        guess = np.maximum(columns @ found, 1e-12)
        residual = np.log(loss) - np.log(guess)
        value = float(_huber(residual).mean())
        if value >= best * (1 - 1e-9):
            break
        best, kept = value, found
        # d log L = dL / L turns residuals of L into residuals of log L
        weight = np.sqrt(np.minimum(1.0, DELTA / np.maximum(np.abs(residual), 1e-12))) / guess
    return best, kept / scale


def fit(n: np.ndarray, d: np.ndarray, loss: np.ndarray, start: Law | None = None) -> Law:
    """The law of runs with ``n`` parameters, ``d`` samples and ``loss``.

    ``start``: search from the exponents of this law only (for bootstrap samples).

    Raises:
        ValueError: fewer than five runs, three sizes or two amounts of data, or a number <= 0.
    """
    n, d, loss = checked(n, d, loss)
    if start is not None:
        starts = [(start.alpha, start.beta)]
    else:
        coarse = [(_project((a, b), n, d, loss, rounds=2)[0], a, b) for a in _GRID for b in _GRID]
        starts = [(a, b) for _, a, b in sorted(coarse)[:3]]
    options = {"xatol": 1e-5, "fatol": 1e-13}
    tries = [
        minimize(_objective, at, (n, d, loss), method="Nelder-Mead", options=options)
        for at in starts
    ]
    best = min(tries, key=lambda r: r.fun)
    value, (e, a, b) = _project(best.x, n, d, loss)
    return Law(float(e), float(a), float(b), float(best.x[0]), float(best.x[1]), value)


def checked(*columns: np.ndarray) -> list[np.ndarray]:
    """Parameters, samples and losses of runs as numbers.

    Raises:
        ValueError: see ``fit``.
    """
    n, d, loss = (np.asarray(v, float) for v in columns)
    if (
        not (len(n) == len(d) == len(loss))
        or min(v.min(initial=1.0) for v in (n, d, loss)) <= 0
        or not np.isfinite(loss).all()
    ):
        raise ValueError(
            "scaling fit: parameters, samples and losses must be positive and of one length"
        )
    if len(n) < 5 or len(set(n)) < 3 or len(set(d)) < 2:
        raise ValueError(
            f"scaling fit: {count(len(n), 'run')} of {count(len(set(n)), 'size')} and "
            f"{count(len(set(d)), 'amount')} of data; five, three and two are needed"
        )
    return [n, d, loss]


def _objective(exponents: np.ndarray, n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> float:
    if min(exponents) < EXPONENTS[0] or max(exponents) > EXPONENTS[1]:
        return 1e3 + float(np.abs(exponents).sum())
    return _project(exponents.tolist(), n, d, loss)[0]


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval."""
    tail = 50 * (1 - level)
    low, high = np.percentile(np.asarray(values, float), [tail, 100 - tail])
    return float(low), float(high)
