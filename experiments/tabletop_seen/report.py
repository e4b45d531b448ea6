"""Table, curves and copies of what the runs wrote, for this folder. Usage: python experiments/tabletop_seen/report.py"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from vla.evaluate import Result
from vla.report import curves_table, plot_curves, table_rows
from vla.tables import markdown, put, write_table

HERE, RUNS = Path(__file__).parent, Path("runs/seen")
_ONE_THING = re.compile(
    r"(?:pick up|pick|lift|grasp|move|place|bring|push|slide|nudge) the (.+?)(?: (?:to the|at the|left|right|up|down).*)?$"
)


def load(path: Path) -> list[Result]:
    """The episodes of an evaluation."""
    return [Result(**row) for row in json.loads(path.read_text())["episodes"]]


def concepts(episodes: list[Result]) -> dict[str, tuple[int, int]]:
    """Concept -> (successes, episodes) over the skills that are about one thing."""
    found: dict[str, tuple[int, int]] = {}
    for e in episodes:
        match = _ONE_THING.match(e.instruction) if e.skill in ("pick", "place", "push") else None
        if match:
            wins, n = found.get(match[1], (0, 0))
            found[match[1]] = (wins + e.success, n + 1)
    return dict(sorted(found.items(), key=lambda item: item[1][0] / item[1][1]))


def tables() -> dict[str, str]:
    """The README's tables: an attempt each."""
    found = {}
    for name, folder in (
        ("first attempt", "attempt_1/eval"),
        ("second attempt", "attempt_2/eval"),
        ("third attempt", "eval"),
        ("other seeds", "eval_fresh"),
    ):
        if (HERE / folder / "results.json").is_file():
            rows = table_rows({name: load(HERE / folder / "results.json")})
            columns = [c for c in rows[0] if c != "policy"]
            found[name] = markdown(columns, [[r[c] for c in columns] for r in rows])
    return found


def main() -> None:
    """With a results.json as argument: successes by concept. Else everything but the README's words."""
    if len(sys.argv) > 1:
        for name, (wins, n) in concepts(load(Path(sys.argv[1]))).items():
            print(f"{wins:3} of {n:3}  {name}")
        return
    runs = {
        name: RUNS / name for name in ("web", "policy", "more") if list((RUNS / name).glob("csv-*"))
    }  # a copied stage has no curve
    plot_curves(runs, HERE / "curves.png")
    for name, run in runs.items():
        write_table(HERE / f"metrics_{name}.csv", curves_table(run))
    shutil.copytree(RUNS / "more" / "policy", HERE / "policy", dirs_exist_ok=True)
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
