"""From ``results.csv`` to fits, a Markdown report and figures; a few seconds, nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla.scaling.fit import Law, bootstrap, fit, interval
from vla.scaling.ladder import Rung
from vla.scaling.success import Logistic, bootstrap_success, fit_success
from vla.tables import put

ROUNDS = 200  # of every bootstrap


@dataclass(frozen=True)
class Runs:
    """Finished runs as columns: n parameters without embeddings, d robot samples, loss, flops, wins of episodes over all skills, seed."""

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
        """Some of the runs."""
        index = np.flatnonzero(kept)
        own: dict[str, Any] = {k: v[index] if isinstance(v, np.ndarray) else [v[i] for i in index] for k, v in vars(self).items()}
        return Runs(**own)


def as_runs(rows: list[dict[str, str]]) -> Runs:
    """Rows (one a skill) to runs."""
    groups: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(row["run"], []).append(row)
    first = [g[0] for g in groups.values()]

    def column(name: str) -> np.ndarray:
        return np.array([float(r[name]) for r in first])

    def total(name: str) -> np.ndarray:
        return np.array([sum(float(r[name]) for r in g) for g in groups.values()])

    return Runs(
        list(groups), [r["size"] for r in first], column("parameters_without_embeddings"), column("robot_samples"), column("val_loss_robot"),
        column("flops"), total("wins"), total("episodes"), column("seed"),
    )  # fmt: skip


@dataclass(frozen=True)
class Fits:
    """held_out: which runs the law has not seen (those that took the most FLOPs); law: of the others; laws: resampled; success, curves:
    against log10 parameters; by_loss: against loss; None where no episodes were run."""

    runs: Runs
    held_out: np.ndarray
    law: Law
    laws: list[Law]
    success: Logistic | None = None
    curves: tuple[Logistic, ...] = ()
    by_loss: Logistic | None = None
    loss_curves: tuple[Logistic, ...] = ()


def fit_all(rows: list[dict[str, str]], rounds: int = ROUNDS) -> Fits:
    """Raises ValueError where there are too few runs for a law; see ``vla.scaling.fit``."""
    runs = as_runs(rows)
    held_out = runs.flops == runs.flops.max(initial=0.0)  # the largest run, all its seeds
    seen = runs.where(~held_out)
    law = fit(seen.n, seen.d, seen.loss)
    laws = bootstrap(seen.n, seen.d, seen.loss, rounds)
    if not runs.episodes.all():
        return Fits(runs, held_out, law, laws)
    most = runs.where(runs.d == runs.d.max())  # success against size at the most data
    x = np.log10(most.n)
    return Fits(
        runs, held_out, law, laws, fit_success(x, most.wins, most.episodes), tuple(bootstrap_success(x, most.wins, most.episodes, rounds)),
        fit_success(runs.loss, runs.wins, runs.episodes), tuple(bootstrap_success(runs.loss, runs.wins, runs.episodes, rounds)),
    )  # fmt: skip


def _range(values: list[float]) -> str:
    low, high = interval(values)
    return f"{low:.3g} to {high:.3g}"


def markdown(fits: Fits) -> str:
    """The report."""
    runs, law = fits.runs, fits.law
    lines = [
        "## The law", "", f"L(N, D) = E + A / N^alpha + B / D^beta, {int((~fits.held_out).sum())} runs, N parameters without embeddings, D robot samples.", "",
        "| | fit | 95 % interval |", "|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {k} | {getattr(law, k):.3g} | {_range([getattr(other, k) for other in fits.laws])} |"
        for k in ("E", "A", "B", "alpha", "beta")
    ]
    held = runs.where(fits.held_out)
    said = float(law(held.n[0], held.d[0]))
    was = float(held.loss.mean())
    lines += [
        "", f"Held out: the largest run ({held.name[0]}, {held.n[0]:.3g} parameters, {held.d[0]:.3g} samples). Predicted loss {said:.4f} "
        f"({_range([float(other(held.n[0], held.d[0])) for other in fits.laws])}), measured {was:.4f}: {100 * (said / was - 1):+.1f} %.",
    ]  # fmt: skip
    per_sample = float(np.median(runs.flops / (runs.n * runs.d)))
    if min(law.A, law.B) > 0:
        budget = float(runs.flops.max())
        best = float(law.optimal_n(budget, per_sample))
        share = law.beta / (law.alpha + law.beta)
        lines += [
            "",
            f"Compute-optimal size: N proportional to C^{share:.2f}; for the largest budget here ({budget:.3g} FLOPs) {best:.3g} parameters.",
        ]
    else:
        lines += ["", "No compute-optimal size: in these runs loss does not fall with both parameters and data."]
    if fits.success:
        lines += [
            "", "## Success", "", "Odds of success grow by the factor (binomial fit; runs and episodes resampled):", "",
            "| for | factor | 95 % interval |", "|---|---|---|",
            f"| ten times the parameters, at the most data | {np.exp(fits.success.slope):.3g} | {_range([float(np.exp(c.slope)) for c in fits.curves])} |",
        ]  # fmt: skip
        assert fits.by_loss is not None
        lines += [
            f"| a loss lower by 0.1 | {np.exp(-0.1 * fits.by_loss.slope):.3g} | {_range([float(np.exp(-0.1 * c.slope)) for c in fits.loss_curves])} |"
        ]
    lines += [
        "",
        "## Runs",
        "",
        "| run | parameters | robot samples | FLOPs | loss | fit | success |",
        "|---|---|---|---|---|---|---|",
    ]
    order = np.lexsort((runs.seed, runs.d, runs.n))
    for i in order:
        wins = f"{runs.wins[i]:.0f} of {runs.episodes[i]:.0f}" if runs.episodes[i] else "not run"
        lines.append(
            f"| {runs.name[i]}{' (held out)' if fits.held_out[i] else ''} | {runs.n[i]:.3g} | {runs.d[i]:.3g} | {runs.flops[i]:.3g} | "
            f"{runs.loss[i]:.4f} | {float(law(runs.n[i], runs.d[i])):.4f} | {wins} |"
        )
    return "\n".join(lines) + "\n"


def write_report(rows: list[dict[str, str]], out: Path, rounds: int = ROUNDS) -> None:
    """``report.md``, the figures (PNG and SVG) in ``out``, and the report in its README's place for it; says what is missing where there are too few runs."""
    from vla.scaling.figures import draw

    try:
        fits = fit_all(rows, rounds)
    except ValueError as error:
        print(f"no fit yet: {error}")
        return
    text = markdown(fits)
    (out / "report.md").write_text(text, encoding="utf-8")
    readme = out / "README.md"
    if readme.is_file() and "<!-- report -->" in readme.read_text(encoding="utf-8"):
        put(readme, "report", text.strip())
    print(f"wrote {out / 'report.md'} and {len(draw(fits, out))} figures", flush=True)


def show_plan(planned: list[Rung], todo: list[Rung], cost: dict[tuple[str, str], dict[str, float]]) -> None:
    """Every run with its FLOPs and predicted hours (from steps timed just now), and the sum of what is left."""
    from vla.report import print_table

    open_names, rows = {r.name for r in todo}, []
    left = 0.0
    for rung in planned:
        known: dict[str, Any] = cost.get((rung.size, rung.data), {})
        hours = known.get("seconds", 0.0) / 3600
        left += hours if rung.name in open_names else 0.0
        rows.append({
            "run": rung.name, "parameters": f"{known['parameters']:,}" if known else "", "FLOPs": f"{known['flops']:.3g}" if known else "",
            "hours": f"{hours:.2f}" if known else "", "state": "to do" if rung.name in open_names else "done",
        })  # fmt: skip
    print_table(rows, f"{len(todo)} of {len(planned)} runs to do; about {left:.1f} hours here, one after the other")
