"""The loss law and the success curve recover known constants."""

from __future__ import annotations

import numpy as np
import pytest

from vla.experiments.scaling.fit import Law, fit, interval, undetermined
from vla.experiments.scaling.forms import bootstrap
from vla.experiments.scaling.success import bootstrap_success, fit_success

CHINCHILLA = Law(1.69, 406.4, 410.7, 0.34, 0.28)  # arXiv 2203.15556, equation 10


def grid(noise: float, seeds: int = 1, draw: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sizes, data = np.geomspace(5e7, 1e10, 8), np.geomspace(1e9, 5e11, 6)
    n, d = (v.ravel().repeat(seeds) for v in np.meshgrid(sizes, data))
    return n, d, CHINCHILLA(n, d) * np.exp(np.random.default_rng(draw).normal(0, noise, len(n)))


def test_known_constants_are_recovered() -> None:
    law = fit(*grid(0.0))
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(CHINCHILLA, name), rel=2e-3), name


@pytest.mark.slow
def test_intervals_cover_the_constants_at_their_level() -> None:
    inside = []
    for draw in range(5):
        n, d, loss = grid(0.01, seeds=2, draw=draw)
        laws = bootstrap(n, d, loss, rounds=40, seed=draw)
        for name in ("E", "alpha", "beta"):
            low, high = interval([getattr(law, name) for law in laws])
            inside.append(low < getattr(CHINCHILLA, name) < high and high - low > 1e-3)
    assert np.mean(inside) > 0.7  # 95 % intervals, 5 draws of three numbers that hang together
    assert float(fit(n, d, loss)(2e10, 1e12)) == pytest.approx(
        float(CHINCHILLA(2e10, 1e12)), rel=0.02
    )  # beyond all runs


def test_one_outlier_does_not_change_the_law() -> None:
    n, d, loss = grid(0.0)
    loss[17] *= 3
    law = fit(n, d, loss)
    assert law.alpha == pytest.approx(0.34, rel=0.02) and pytest.approx(1.69, rel=0.02) == law.E


def test_what_the_runs_do_not_determine_is_named() -> None:
    n, d, _ = grid(0.0)
    assert undetermined(fit(n, d, CHINCHILLA(n, d)), n, d) == []
    flat = fit(n, d, 1.69 + 410.7 / d**0.28)
    assert undetermined(flat, n, d) == ["the fitted loss does not fall with the size of the runs"]
    n, d = n / n.min(), d / d.min()
    [steep] = undetermined(Law(1.0, 1.0, 1.0, 0.3, 2.9999), n, d)
    assert steep == "beta is 3, the end of its range, so it is not determined"
    [zero] = undetermined(Law(0.0, 1.0, 1.0, 0.3, 0.3), n, d)
    assert "the lowest possible loss" in zero


def test_the_optimum_is_an_optimum() -> None:
    budget, per_sample = 1e21, 6.0
    best = float(CHINCHILLA.optimal_n(budget, per_sample))
    lowest = CHINCHILLA(best, budget / per_sample / best)
    assert all(
        lowest < CHINCHILLA(best * f, budget / per_sample / (best * f))
        for f in (0.8, 0.97, 1.03, 1.25)
    )
    with pytest.raises(ValueError, match="no compute-optimal size"):
        Law(1.0, 0.0, 1.0, 0.3, 0.3).optimal_n(budget, per_sample)


def test_too_few_runs_are_rejected() -> None:
    n, d, loss = grid(0.0)
    with pytest.raises(ValueError, match="4 runs of 4 sizes and 1 amount of data"):
        fit(n[:4], d[:4], loss[:4])
    with pytest.raises(ValueError, match="must be positive"):
        fit(n, d, -loss)


def test_the_binomial_curve_is_recovered() -> None:
    x = np.repeat(np.linspace(5, 7, 9), 2)
    truth = 1 / (1 + np.exp(-(-12 + 2 * x)))
    episodes = np.full(len(x), 400)
    wins = np.random.default_rng(1).binomial(episodes, truth)
    curve = fit_success(x, wins, episodes)
    assert curve.slope == pytest.approx(2, rel=0.15)
    low, high = interval([c.slope for c in bootstrap_success(x, wins, episodes, 60)])
    assert low < 2 < high
    assert np.isfinite(fit_success(x, episodes, episodes).slope)  # all won: no infinite slope
    with pytest.raises(ValueError, match="two different x"):
        fit_success(x[:1], wins[:1], episodes[:1])
