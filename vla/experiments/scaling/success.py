"""Success against log parameters or loss: a logistic curve with a binomial likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

_PRIOR = 1e-3  # ridge: without failures or successes no finite slope is best


@dataclass(frozen=True)
class Logistic:
    """p(x) = 1 / (1 + exp(-(intercept + slope x)))."""

    intercept: float
    slope: float

    def __call__(self, x: np.ndarray | float) -> np.ndarray:
        """Predicted success."""
        return expit(self.intercept + self.slope * np.asarray(x, float))


def fit_success(x: np.ndarray, wins: np.ndarray, episodes: np.ndarray) -> Logistic:
    """Maximum likelihood of ``wins`` among ``episodes`` at each ``x``.

    Raises:
        ValueError: fewer than two different x, or more wins than episodes.
    """
    x, wins, episodes = (np.asarray(v, float) for v in (x, wins, episodes))
    if len(set(x)) < 2 or (wins > episodes).any() or (episodes <= 0).any():
        raise ValueError(
            "success fit: at least two different x, and 0 <= wins <= episodes with episodes > 0"
        )
    middle, spread = x.mean(), x.std()
    z = (x - middle) / spread

    def negative(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logit = parameters[0] + parameters[1] * z
        value = float(
            (episodes * np.logaddexp(0, logit) - wins * logit).sum()
            + 0.5 * _PRIOR * (parameters**2).sum()
        )
        error = episodes * expit(logit) - wins
        return value, np.array([error.sum(), (error * z).sum()]) + _PRIOR * parameters

    a, b = minimize(negative, np.zeros(2), jac=True, method="BFGS").x
    return Logistic(float(a - b * middle / spread), float(b / spread))


def bootstrap_success(
    x: np.ndarray, wins: np.ndarray, episodes: np.ndarray, rounds: int = 200, seed: int = 0
) -> list[Logistic]:
    """Curves of resampled runs, with resampled episodes within each run (two-level bootstrap)."""
    rng = np.random.default_rng(seed)
    curves: list[Logistic] = []
    while len(curves) < rounds:
        chosen = rng.integers(0, len(x), len(x))
        if len(set(x[chosen].tolist())) < 2:
            continue
        drawn = rng.binomial(episodes[chosen].astype(int), wins[chosen] / episodes[chosen])
        curves.append(fit_success(x[chosen], drawn, episodes[chosen]))
    return curves
