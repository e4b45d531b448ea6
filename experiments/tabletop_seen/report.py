"""Table, curves and copies of what the runs wrote, for this folder. Usage: python experiments/tabletop_seen/report.py"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np

from vla.evaluate import Result
from vla.report import curves_table, plot_curves, table_rows
from vla.tables import markdown, put, read_table, write_table

HERE, RUNS = Path(__file__).parent, Path("runs/seen")
BATCH = 16  # pictures a step in all stages
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
    return found | {"time": stage_times()}


def stage_times() -> str:
    """Of every stage's log: minutes as they went, and at the rate that one log line in ten exceeds (the machine undisturbed)."""
    logs = {
        "web": "attempt_1/metrics_web.csv",
        "second attempt": "attempt_2/metrics_policy.csv",
        "third attempt": "metrics_more.csv",
    }
    rows = []
    for stage, log in logs.items():
        lines = [
            (BATCH * float(r["step"]), float(r["images_per_second"])) for r in read_table(HERE / log) if r["images_per_second"]
        ]
        images, rates = np.diff([0.0, *(n for n, _ in lines)]), np.array([rate for _, rate in lines])
        quick = float(np.quantile(rates, 0.9))
        rows.append([stage, log, f"{(images / rates).sum() / 60:.0f}", f"{quick:.0f}", f"{images.sum() / quick / 60:.0f}"])
    return markdown(["stage", "log", "minutes", "pictures a second, undisturbed", "minutes at that rate"], rows)


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
