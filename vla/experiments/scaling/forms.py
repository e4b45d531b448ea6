"""Forms of the loss law L(N, D), chosen by their error on runs that the fit leaves out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from scipy.optimize import least_squares

from vla.experiments.scaling.fit import DELTA, EXPONENTS, Law, checked, fit


class Curve(Protocol):
    """A fitted form."""

    def __call__(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Predicted loss of ``n`` parameters and an amount of data ``d``."""
        ...


@dataclass(frozen=True)
class LogLinear:
    """L = a - b ln N - c ln D: no lowest loss, so it holds between the runs only."""

    a: float
    b: float
    c: float

    def __call__(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Predicted loss, larger than 0."""
        line = self.a - self.b * np.log(n) - self.c * np.log(d)
        return np.maximum(line, 1e-12)


@dataclass(frozen=True)
class Saturating:
    """L = ((N0 / N)^(alpha / beta) + D0 / D)^beta (arXiv 2001.08361, equation 1.5).

    Size does not help beyond what the data allow, and the other way round: with N alone, L falls
    to (D0 / D)^beta.
    """

    log_n0: float
    log_d0: float
    alpha: float
    beta: float

    def __call__(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Predicted loss."""
        size = self.alpha / self.beta * (self.log_n0 - np.log(n))
        return np.exp(self.beta * np.logaddexp(size, self.log_d0 - np.log(d)))


def _fit_log_linear(n: np.ndarray, d: np.ndarray, loss: np.ndarray, start: Any = None) -> LogLinear:
    n, d, loss = checked(n, d, loss)
    columns = np.stack([np.ones_like(n), -np.log(n), -np.log(d)], 1)
    first = np.linalg.lstsq(columns, loss, rcond=None)[0]

    def residual(numbers: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(columns @ numbers, 1e-12)) - np.log(loss)

    return LogLinear(*_solve(residual, [first]))


def _fit_saturating(
    n: np.ndarray, d: np.ndarray, loss: np.ndarray, start: Saturating | None = None
) -> Saturating:
    """Searched as log losses of each term alone at the middle N and D, and both exponents."""
    n, d, loss = checked(n, d, loss)
    middle_n, middle_d = np.log(np.median(n)), np.log(np.median(d))
    x, y = np.log(n) - middle_n, np.log(d) - middle_d

    def residual(numbers: np.ndarray) -> np.ndarray:
        size, data, alpha, beta = numbers
        both = beta * np.logaddexp((size - alpha * x) / beta, (data - beta * y) / beta)
        return np.asarray(both - np.log(loss))

    about = np.log(np.median(loss)) - 0.5
    starts = [np.array([about, about, a, b]) for a in (0.05, 0.2, 0.6) for b in (0.05, 0.2, 0.6)]
    if start is not None:
        size = start.alpha * (start.log_n0 - middle_n)
        data = start.beta * (start.log_d0 - middle_d)
        starts = [np.array([size, data, start.alpha, start.beta])]
    limits = ([-np.inf, -np.inf, *[EXPONENTS[0]] * 2], [np.inf, np.inf, *[EXPONENTS[1]] * 2])
    size, data, alpha, beta = _solve(residual, starts, limits)
    n0, d0 = middle_n + size / alpha, middle_d + data / beta
    return Saturating(float(n0), float(d0), alpha, beta)


def _solve(
    residual: Callable[[np.ndarray], np.ndarray],
    starts: list[np.ndarray],
    bounds: Any = (-np.inf, np.inf),
) -> list[float]:
    """The numbers with the smallest Huber loss of log residuals, as for ``fit.Law``."""
    options: dict[str, Any] = {"loss": "huber", "f_scale": DELTA, "x_scale": "jac"}
    tries = [least_squares(residual, at, bounds=bounds, **options) for at in starts]
    return [float(v) for v in min(tries, key=lambda t: t.cost).x]


@dataclass(frozen=True)
class Form:
    """A form of the law."""

    formula: str
    numbers: int  # fitted numbers
    # (parameters, data, losses, curve to start from or None) -> fitted curve
    fit: Callable[..., Any]


FORMS = {
    "power law with floor": Form("E + A / N^alpha + B / D^beta", len(fields(Law)) - 1, fit),
    "log-linear": Form("a - b ln N - c ln D", len(fields(LogLinear)), _fit_log_linear),
    "saturating": Form(
        "((N0 / N)^(alpha / beta) + D0 / D)^beta", len(fields(Saturating)), _fit_saturating
    ),
}


def left_out_error(
    form: Form, n: np.ndarray, d: np.ndarray, loss: np.ndarray, curve: Curve
) -> float:
    """Mean relative error on each (N, D), with a fit of all other runs; NaN if they are too few.

    ``curve``: fitted to all runs; the other fits start from it.
    """
    errors = []
    for size, data in sorted(set(zip(n.tolist(), d.tolist(), strict=True))):
        out = (n == size) & (d == data)
        try:
            found = form.fit(n[~out], d[~out], loss[~out], curve)
        except ValueError:
            return float("nan")
        errors.append(np.abs(found(size, data) / loss[out] - 1).mean())
    return float(np.mean(errors))


def choose(errors: dict[str, float]) -> str:
    """The form with the smallest error; the power law if no error is known."""
    known = {name: error for name, error in errors.items() if np.isfinite(error)}
    return min(known, key=lambda name: known[name]) if known else next(iter(FORMS))


def bootstrap(
    n: np.ndarray,
    d: np.ndarray,
    loss: np.ndarray,
    rounds: int = 200,
    seed: int = 0,
    form: str = "power law with floor",
    curve: Curve | None = None,
) -> list[Any]:
    """Curves of resampled runs: residuals of log loss are drawn around the fit.

    ``curve``: the fit of all runs, if it is known.

    Residuals are widened for the fitted numbers. Resampling the seeds of each size gives
    intervals that are too narrow with two or three seeds. scipy's ``bootstrap`` has no residual
    bootstrap.
    """
    n, d, loss = (np.asarray(v, float) for v in (n, d, loss))
    rng, kind = np.random.default_rng(seed), FORMS[form]
    curve = curve or kind.fit(n, d, loss)
    middle = np.log(curve(n, d))
    widened = np.sqrt(len(n) / max(1, len(n) - kind.numbers))
    residual = (np.log(loss) - middle) * widened
    return [
        kind.fit(n, d, np.exp(middle + rng.choice(residual, len(n))), curve) for _ in range(rounds)
    ]
