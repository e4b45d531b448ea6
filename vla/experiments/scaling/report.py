"""Write a ladder's fit, README table and figures from its results; nothing is trained."""

from __future__ import annotations

from pathlib import Path

from vla.experiments.scaling.analysis import FIT, FORM, ROUNDS, Fits, fit_all, fit_rows, form_rows
from vla.experiments.scaling.axis_figures import draw_axes
from vla.experiments.scaling.figures import draw
from vla.experiments.scaling.fit import undetermined
from vla.utils.csv_tables import markdown, put, write_table


def fit_table(fits: Fits) -> str:
    """Markdown: the quantities of ``fit.csv``."""
    return markdown(
        ["quantity", "value", "95 % low", "high"], [[*r.values()] for r in fit_rows(fits)]
    )


def form_table(fits: Fits) -> str:
    """Markdown: the rows of ``forms.csv``."""
    return markdown(FORM, [[*r.values()] for r in form_rows(fits)])


def write_report(
    rows: list[dict[str, str]],
    out: Path,
    rounds: int = ROUNDS,
    explain: bool = True,
    amount: str = "samples",
) -> None:
    """Write ``fit.csv``, ``forms.csv``, the figures and the README's tables.

    Prints what the runs do not determine, and with ``explain`` why no fit is possible.
    """
    try:
        fits = fit_all(rows, rounds, amount)
    except ValueError as error:
        if explain:
            print(f"no fit: {error}, without the largest run, which tests the prediction")
        return
    for problem in undetermined(fits.law, fits.runs.n, fits.runs.d):
        print(f"warning: {problem}; add sizes, amounts of data or seeds to the ladder")
    write_table(out / "fit.csv", fit_rows(fits), FIT)
    write_table(out / "forms.csv", form_rows(fits), FORM)
    readme = out / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    for name, table in (("fit", fit_table(fits)), ("forms", form_table(fits))):
        if f"<!-- {name} -->" in text:
            put(readme, name, table)
    drawn = [*draw(fits, out), *draw_axes(rows, out)]
    print(f"wrote {out / 'fit.csv'} and {len(drawn)} figures", flush=True)
