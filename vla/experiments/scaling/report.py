"""Write a ladder's fit, README table and figures from its results; nothing is trained."""

from __future__ import annotations

from pathlib import Path

from vla.experiments.scaling.analysis import FIT, ROUNDS, Fits, fit_all, fit_rows
from vla.experiments.scaling.figures import draw
from vla.experiments.scaling.fit import undetermined
from vla.utils.csv_tables import markdown, put, write_table


def fit_table(fits: Fits) -> str:
    """Markdown: the quantities of ``fit.csv``."""
    return markdown(
        ["quantity", "value", "95 % low", "high"], [[*r.values()] for r in fit_rows(fits)]
    )


def write_report(
    rows: list[dict[str, str]], out: Path, rounds: int = ROUNDS, explain: bool = True
) -> None:
    """Write ``fit.csv``, the figures and the README's table.

    Prints what the runs do not determine, and with ``explain`` why no fit is possible.
    """
    try:
        fits = fit_all(rows, rounds)
    except ValueError as error:
        if explain:
            print(f"no fit: {error}, without the largest run, which tests the prediction")
        return
    for problem in undetermined(fits.law, fits.runs.n, fits.runs.d):
        print(f"warning: {problem}; add sizes, amounts of data or seeds to the ladder")
    write_table(out / "fit.csv", fit_rows(fits), FIT)
    readme = out / "README.md"
    if readme.is_file() and "<!-- fit -->" in readme.read_text(encoding="utf-8"):
        put(readme, "fit", fit_table(fits))
    print(f"wrote {out / 'fit.csv'} and {len(draw(fits, out))} figures", flush=True)
