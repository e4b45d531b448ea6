"""``vla scale --ask``: which size and how much data reach a loss or a success, from the fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import logit

from vla.errors import ConfigError
from vla.experiments.scaling.analysis import AMOUNTS, Fits, fit_all
from vla.experiments.scaling.forms import Curve
from vla.experiments.scaling.success import Logistic

FARTHEST = 1e4  # the search ends at the measured range times this
_QUESTION = re.compile(r"\s*(success|loss)\s*(>=|<=|>|<)\s*(\d*\.?\d+(?:[eE][+-]?\d+)?)\s*(%?)\s*")


@dataclass(frozen=True)
class Question:
    """A success that is at least, or a loss that is at most, ``value``."""

    quantity: str  # success or loss
    value: float

    def loss(self, by_loss: Logistic | None) -> float:
        """The largest loss that answers it; NaN if success does not rise as loss falls."""
        if self.quantity == "loss":
            return self.value
        assert by_loss is not None
        if by_loss.slope >= 0:
            return float("nan")
        return float((logit(self.value) - by_loss.intercept) / by_loss.slope)


def read_question(text: str) -> Question:
    """``success >= 0.6``, the same in percent (``success >= 60 %``), or ``loss <= 0.4``.

    Raises:
        ConfigError: another text, or a number that cannot be reached.
    """
    match = _QUESTION.fullmatch(text)
    rising = match is not None and match[1] == "success"
    if match is None or match[2].startswith(">") != rising or (match[4] and not rising):
        raise ConfigError(f'--ask {text!r}: expected "success >= NUMBER" or "loss <= NUMBER"')
    value = float(match[3]) / (100 if match[4] else 1)
    if rising and not 0 < value < 1:
        raise ConfigError(f"--ask {text!r}: success is a share, larger than 0 and smaller than 1")
    if value <= 0:
        raise ConfigError(f"--ask {text!r}: a loss is larger than 0")
    return Question(match[1], value)


def smallest(loss_at: Callable[[float], float], target: float, low: float, high: float) -> float:
    """The smallest x with ``loss_at(x) <= target`` from ``low`` to ``high``; inf if there is none.

    ``loss_at`` falls. ``low`` is returned if it is enough.
    """
    if not np.isfinite(target) or loss_at(high) > target:
        return float("inf")
    if loss_at(low) <= target:
        return low
    root = brentq(lambda x: loss_at(float(np.exp(x))) - target, np.log(low), np.log(high))
    return float(np.exp(root))


def answer(rows: list[dict[str, str]], text: str, amount: str, rounds: int, table: Path) -> None:
    """Print the smallest amount of data for every size, and the smallest size for every amount.

    Args:
        rows: those of the file ``table``.
        text: see ``read_question``.
        amount, rounds: see ``fit_all``.

    Raises:
        ConfigError: see ``read_question``; or the results do not allow an answer.
    """
    question = read_question(text)
    try:
        fits = fit_all(rows, rounds, amount)
    except ValueError as error:
        raise ConfigError(
            f"--ask: no answer from the {len(rows)} rows of {table}: {error}"
        ) from error
    show(fits, question, _tasks(rows))


def _tasks(rows: Sequence[dict[str, str]]) -> int:
    """Tasks in the training data of the law's runs; 0 if they are unknown."""
    return max((int(r["tasks"]) for r in rows if r["axis"] == "data" and r["tasks"]), default=0)


def show(fits: Fits, question: Question, tasks: int) -> None:
    """Print the answer; ``tasks``: in the training data, 0 if unknown.

    Raises:
        ConfigError: a success is asked for, and the runs have no episodes, or no more success at a
            lower loss.
    """
    from vla.utils.tables import print_table

    if question.quantity == "success" and fits.by_loss is None:
        raise ConfigError("--ask: the runs have no episodes, so only a loss can be asked for")
    runs, unit = fits.runs, AMOUNTS[fits.amount][1]
    target = question.loss(fits.by_loss)
    if not np.isfinite(target):
        raise ConfigError("--ask: the runs' success does not rise as their loss falls: no answer")
    sign = ">=" if question.quantity == "success" else "<="
    print(f"{question.quantity} {sign} {question.value:g}, from {len(runs.name)} finished runs")
    if question.quantity == "success":
        share = runs.wins / runs.episodes
        far = "" if share.min() <= question.value <= share.max() else ": an extrapolation"
        print(
            f"calibration: this success is at a loss of {target:.4g}; "
            f"the runs have successes of {share.min():.3g} to {share.max():.3g}{far}"
        )
    print(f"law: {fits.form}, left-out error {100 * fits.errors[fits.form]:.3g} %")
    sizes = dict(sorted(zip(runs.size, runs.n.tolist(), strict=True), key=lambda pair: pair[1]))
    by_size = []
    for size, n in sizes.items():
        found = _solve(fits, question, n=n)
        a_task = {"a task": f"{found[0] / tasks:,.1f}"} if tasks and np.isfinite(found[0]) else {}
        row = {"size": size, "parameters": f"{n:,.0f}"} | _cells(unit, *found, runs.d)
        by_size.append(row | (a_task or {"a task": ""} if fits.amount != "samples" else {}))
    print_table(by_size, f"smallest number of {unit}, by size")
    by_data = []
    for d in sorted(set(runs.d.tolist())):
        found = _solve(fits, question, d=d)
        by_data.append({unit: f"{d:,.0f}"} | _cells("parameters", *found, runs.n))
    print_table(by_data, f"smallest size, by {unit}")


def _solve(
    fits: Fits, question: Question, n: float | None = None, d: float | None = None
) -> tuple[float, float, float]:
    """The smallest amount of data for ``n``, or size for ``d``, with the ends of its 95 % band.

    The band is over bootstrap rounds. All three may be inf.
    """
    measured = fits.runs.d if d is None else fits.runs.n
    low, high = float(measured.min()) / FARTHEST, float(measured.max()) * FARTHEST

    def solve(curve: Curve, by_loss: Logistic | None) -> float:
        def loss_at(x: float) -> float:
            return float(curve(x if n is None else n, x if d is None else d))

        return smallest(loss_at, question.loss(by_loss), low, high)

    by_losses = fits.loss_curves or (None,) * len(fits.band)
    found = [solve(curve, by) for curve, by in zip(fits.band, by_losses, strict=True)]
    first, last = np.quantile(found, [0.025, 0.975], method="inverted_cdf")
    return solve(fits.curve, fits.by_loss), float(first), float(last)


def _cells(
    name: str, value: float, first: float, last: float, measured: np.ndarray
) -> dict[str, str]:
    """The value, its band, and how it relates to the measured range."""
    return {
        name: _number(value),
        "95 % band": f"{_number(first)} to {_number(last)}",
        "basis": _basis(value, float(measured.min()), float(measured.max())),
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "not reached"


def _basis(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return f"not reached with {FARTHEST:,.0f} times the most measured"
    if value > high:
        return f"extrapolation: {value / high:.3g} times the most measured"
    if value < low:
        return f"extrapolation: {value / low:.2g} times the least measured"
    return "within the measured range"
