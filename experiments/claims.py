"""Compare the studies with RT-2's claims: CSV files here and the tables of ``README.md``.

Usage: python experiments/claims.py
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vla.benchmarks.base import Task
from vla.config import read_yaml
from vla.evaluation.statistics import mcnemar_of_pairs
from vla.experiments.study.averages import (
    group_interval,
    group_share,
    groups_of,
    ratio_interval,
)
from vla.experiments.study.config import StudyConfig, label_of, load_study
from vla.experiments.study.reproduce import COLUMNS
from vla.experiments.study.summaries import Results, read_results
from vla.utils.csv_tables import markdown, put, read_table, write_table

HERE = Path(__file__).parent
RT1 = "rt1_longer"  # the baseline of the README; other trainings of it are in rt1.csv
COMPARED: dict[str, Any] = read_yaml(HERE / "claims.yaml")
LEVEL = 0.01  # p of a significant step of the order
Rows = list[dict[str, str]]


@cache
def _study(name: str) -> tuple[StudyConfig, Results, dict[str, list[Task]]]:
    config = load_study(HERE / name / "study.yaml")
    return config, read_results(HERE / name), groups_of(config.selected_tasks())


def _label(study: str, recipe: str) -> str:
    return label_of(_study(study)[0], recipe)


def _percent(study: str, recipe: str, group: str) -> float:
    _, results, groups = _study(study)
    share = group_share(results.success[recipe], groups[group])
    assert share is not None, f"{study}: {recipe} has no episodes of {group}"
    return 100 * share


def _p(study: str, first: str, second: str, group: str) -> float:
    _, results, groups = _study(study)
    bits = (
        np.concatenate([results.success[side][t.id] for t in groups[group]]).tolist()
        for side in (first, second)
    )
    return float(mcnemar_of_pairs(*bits)["p"])


def rt1() -> Rows:
    """Emergent skills at least three times RT-1's, seen tasks at most three points below."""
    rows = []
    for study, baseline, recipe in COMPARED["rt1"]:
        _, results, groups = _study(study)
        ours, theirs = results.success[recipe], results.success[baseline]
        low, high = ratio_interval(ours, theirs, groups["emergent"])
        ends = [100 * v for v in group_interval(ours, groups["emergent"])]
        emergent, other = (_percent(study, n, "emergent") for n in (recipe, baseline))
        seen, seen_other = (_percent(study, n, "seen") for n in (recipe, baseline))
        rows.append(
            {
                "study": study,
                "policy": _label(study, recipe),
                "baseline": _label(study, baseline),
                "seen, %": f"{seen:.1f}",
                "RT-1 seen, %": f"{seen_other:.1f}",
                "emergent, %": f"{emergent:.1f}",
                "emergent low": f"{ends[0]:.0f}",
                "emergent high": f"{ends[1]:.0f}",
                "RT-1 emergent, %": f"{other:.1f}",
                "ratio": f"{emergent / other:.2f}",
                "ratio low": f"{low:.2f}",
                "ratio high": f"{high:.2f}",
                "reached": "yes" if emergent >= 3 * other and seen >= seen_other - 3 else "no",
            }
        )
    return rows


def order() -> Rows:
    """From scratch < robot data only < co-fine-tuned; each step is tested in pairs."""
    rows = []
    for study, *recipes in COMPARED["order"]:
        for group in ("generalisation", "emergent"):
            means = [_percent(study, name, group) for name in recipes]
            steps = [_p(study, after, before, group) for before, after in pairwise(recipes)]
            found = [b > a and p < LEVEL for (a, b), p in zip(pairwise(means), steps, strict=True)]
            missed = [which for which, ok in zip(("first", "second"), found, strict=True) if not ok]
            rows.append(
                {
                    "study": study,
                    "co-fine-tuned policy": _label(study, recipes[2]),
                    "robot data only": _label(study, recipes[1]),
                    "tasks": group,
                    "scratch, %": f"{means[0]:.1f}",
                    "robot only, %": f"{means[1]:.1f}",
                    "co-fine-tuned, %": f"{means[2]:.1f}",
                    "p of step 1": f"{steps[0]:.1g}",
                    "p of step 2": f"{steps[1]:.1g}",
                    "missed": " and ".join(missed),
                }
            )
    return rows


def forgetting() -> Rows:
    """Questions about held-out images before and after training on robot data."""
    rows = []
    for study, *recipes in COMPARED["forgetting"]:
        answers = _study(study)[1].answers
        shares = [100 * np.concatenate([*answers[n].values()]).mean() for n in recipes]
        names = ("before, %", "co-fine-tuned, %", "robot data only, %")
        rows.append(
            {"study": study, "policy": _label(study, recipes[1])}
            | {n: f"{s:.1f}" for n, s in zip(names, shares, strict=True)}
        )
    return rows


def heads() -> Rows:
    """Tokens, regression and flow matching behind the same plans."""
    rows = []
    for names in COMPARED["heads"]:
        for name in names:
            groups = ("seen", "generalisation", "emergent")
            shares = [_percent("heads", name, group) for group in groups]
            p = "" if name == names[0] else f"{_p('heads', names[0], name, 'seen'):.1g}"
            difference = shares[0] - _percent("heads", names[0], "seen")
            rows.append(
                {"head": _label("heads", name)}
                | {f"{g}, %": f"{s:.1f}" for g, s in zip(groups, shares, strict=True)}
                | {"seen, difference to tokens": f"{difference:+.1f}", "p": p}
            )
    return rows


def claims() -> Rows:
    """RT-2's claims with one number each; RT-2's numbers are in ``claims.yaml``."""
    best, new = ("ablation", "asked_long_hysteresis"), ("emergent/fresh", "asked_long_hysteresis")
    scratch, robot, both = (("emergent", r) for r in COMPARED["order"][0][1:])
    tokens, regression = (("heads", name) for name in COMPARED["heads"][0][:2])

    def ratio(study: str, recipe: str) -> str:
        return f"{_percent(study, recipe, 'emergent') / _percent(study, RT1, 'emergent'):.2f}"

    def points(first: tuple[str, str], second: tuple[str, str], group: str) -> str:
        return f"{_percent(*first, group) - _percent(*second, group):+.1f}"

    here = {
        "emergent_ratio": ratio(*best),
        "emergent_ratio_new_seeds": ratio(*new),
        "seen_to_rt1": points(best, (best[0], RT1), "seen"),
        "cofinetuned_to_robot": points(both, robot, "generalisation"),
        "robot_to_scratch": points(robot, scratch, "generalisation"),
        "robot_to_scratch_emergent": points(robot, scratch, "emergent"),
        "regression_to_tokens": points(regression, tokens, "seen"),
    }
    return [
        {"claim": c["claim"], "RT-2": str(c["rt2"]), "here": here[name], "holds": c["holds"]}
        for name, c in COMPARED["claims"].items()
    ]


def reproduced() -> Rows:
    """By study: how many recipes were run again, and how many had other results."""
    rows = []
    for path in sorted(HERE.glob("**/reproduced.csv")):
        if not (path.parent / "study.yaml").is_file():
            continue  # a ladder's
        own = read_table(path, COLUMNS)
        other = [r for r in own if int(r["tasks_different"]) + int(r["tests_different"])]
        rows.append(
            {
                "study": path.parent.relative_to(HERE).as_posix(),
                "recipes run again": str(len(own)),
                "of these trained again": str(sum(int(r["trained"]) for r in own)),
                "with other results": str(len(other)),
            }
        )
    return rows


FILES = {"rt1": rt1, "order": order}  # tables with more rows or columns than the README shows
HIDDEN = ("baseline", "emergent low", "emergent high", "tasks", "p of step 2")


def tables() -> dict[str, str]:
    """Tables of the README by marker."""
    rows = {f.__name__: f() for f in (claims, rt1, order, forgetting, heads, reproduced)}
    baseline = _label("emergent", RT1)
    rows["rt1"] = [
        r
        for r in rows["rt1"]
        if r["baseline"] == baseline and r["policy"].endswith("plan hysteresis")
    ]
    rows["order"] = [r for r in rows["order"] if r["tasks"] == "emergent"]
    shown = {}
    for name, own in rows.items():
        columns = [c for c in own[0] if not (name in FILES and c in HIDDEN)]
        shown[name] = markdown(columns, [[r[c] for c in columns] for r in own])
    return shown


def main() -> None:
    """Write the CSV files and the README's tables."""
    for name, make in FILES.items():
        rows = make()
        write_table(HERE / f"{name}.csv", rows, list(rows[0]))
    for name, text in tables().items():
        put(HERE / "README.md", name, text)


if __name__ == "__main__":
    main()
