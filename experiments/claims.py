"""What of RT-2's results is found here, in one page: the tables of ``README.md`` beside this file, from the studies' CSV files. Usage: python experiments/claims.py"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from vla.scaling.again import differences
from vla.scaling.fit import interval
from vla.scaling.ladder import read_rows
from vla.scaling.report import fit_all
from vla.study.again import COLUMNS
from vla.study.config import ANSWERS, TIMES, StudyConfig, load_study
from vla.study.report import Episodes, ratio_interval, read_episodes, suite_cells, suite_interval, suite_share
from vla.suites import mcnemar
from vla.tables import markdown, put, read_table

HERE = Path(__file__).parent
BESIDE_RT1 = (  # study, RT-1, the policy beside it
    ("emergent", "rt1_long", "cofinetuned_weighted4_long"),
    ("emergent", "rt1_longer", "cofinetuned_weighted4_long"),
    ("emergent/seeds", "rt1_longer_first", "cofinetuned_weighted4_long"),
    ("emergent/seeds", "rt1_longer_second", "cofinetuned_weighted4_long"),
    ("emergent", "rt1_longer", "cofinetuned_weighted4_long_held"),
    ("ablation", "rt1_longer", "weighted_longer"),
    ("ablation", "rt1_longer", "weighted_longer_held"),
    ("ablation", "rt1_longer_first", "weighted_longer_held"),
    ("ablation", "rt1_longer", "asked_long"),
    ("ablation", "rt1_longer", "asked_long_held"),
    ("ablation", "rt1_longer_first", "asked_long_held"),
    ("emergent/fresh", "rt1_longer", "asked_long_held"),
    ("emergent/fresh", "rt1_longer_first", "asked_long_held"),
    ("ablation", "rt1_longer", "asked_long_seed1"),
    ("ablation", "rt1_longer", "asked_long_seed1_held"),
    ("ablation", "rt1_longer_first", "asked_long_seed1_held"),
    ("ablation", "rt1_longer", "asked_longer"),
    ("ablation", "rt1_longer", "asked_longer_held"),
    ("ablation", "rt1_longer_first", "asked_longer_held"),
)
ORDERS = (  # study, from scratch, robot data alone, co-fine-tuned: the same robot samples each
    ("emergent", "scratch", "robot_only", "cofinetuned_weighted4"),
    ("emergent", "scratch_long", "robot_only_long", "cofinetuned_weighted4_long"),
    ("emergent/seeds", "scratch_seed1", "robot_only_seed1", "cofinetuned_weighted4_seed1"),
    ("emergent/seeds", "scratch_seed1_h100", "robot_only_seed1_h100", "cofinetuned_weighted4_seed1_h100"),
    ("ablation", "scratch", "robot_only", "weighted"),
    ("ablation", "scratch", "robot_only_own", "weighted"),
    ("ablation", "scratch_long", "robot_only_long", "weighted_long"),
)
FORGETTING = (  # study, web stage, co-fine-tuned, robot data alone
    ("emergent", "web", "cofinetuned_weighted4_long", "robot_only_long"),
    ("ablation", "web", "weighted_long", "robot_only_long"),
)
HEADS = (  # each trained alike
    ("token_plan", "regression_plan", "flow_plan"),
    ("token_plan_weighted", "regression_plan_weighted", "flow_plan_weighted"),
)
CHANCE = 0.01  # p of a step of the order


@cache
def _study(name: str) -> tuple[StudyConfig, Episodes]:
    config = load_study(HERE / name / "study.yaml")
    return config, read_episodes(HERE / name)


def _shown(study: str, recipe: str) -> str:
    return _study(study)[0].recipes[recipe].shown or recipe


def _success(study: str, recipe: str, suite: str) -> float:
    config, episodes = _study(study)
    share = suite_share(episodes[recipe], suite_cells(config)[suite])
    assert share is not None, f"{study}: {recipe} has not been driven through {suite}"
    return 100 * share


def _with_interval(study: str, recipe: str, suite: str) -> str:
    config, episodes = _study(study)
    low, high = suite_interval(episodes[recipe], suite_cells(config)[suite])
    return f"{_success(study, recipe, suite):.1f} ({100 * low:.0f} to {100 * high:.0f})"


def _p(study: str, first: str, second: str, suite: str) -> float:
    config, episodes = _study(study)
    cells = suite_cells(config)[suite]
    return float(mcnemar(*([r for c in cells for r in episodes[side][c]] for side in (first, second)))["p"])


def beside_rt1() -> str:
    """Emergent skills at least three times RT-1's, seen tasks no more than three points behind."""
    rows = []
    for study, rt1, recipe in BESIDE_RT1:
        config, episodes = _study(study)
        low, high = ratio_interval(episodes[recipe], episodes[rt1], suite_cells(config)["emergent"])
        times = _success(study, recipe, "emergent") / _success(study, rt1, "emergent")
        seen = [_success(study, name, "seen") for name in (recipe, rt1)]
        rows.append([
            f"`{study}`", _shown(study, recipe), _shown(study, rt1), f"{seen[0]:.1f}", f"{seen[1]:.1f}", _with_interval(study, recipe, "emergent"), _with_interval(study, rt1, "emergent"),
            f"{times:.2f} ({low:.2f} to {high:.2f})", "yes" if times >= 3 and seen[0] >= seen[1] - 3 else "no",
        ])  # fmt: skip
    return markdown(
        ["study", "policy", "beside", "seen, %", "RT-1: seen", "emergent, %", "RT-1: emergent", "times RT-1", "three times"], rows
    )


def order() -> str:
    """From scratch < robot data alone < co-fine-tuned, each step paired."""
    rows = []
    for study, *recipes in ORDERS:
        for suite in ("generalisation", "emergent"):
            means = [_success(study, name, suite) for name in recipes]
            steps = [_p(study, after, before, suite) for before, after in pairwise(recipes)]
            holds = [after > before and p < CHANCE for (before, after), p in zip(pairwise(means), steps, strict=True)]
            missed = [which for which, ok in zip(("first", "second"), holds, strict=True) if not ok]
            verdict = "no: " + " and ".join(missed) if missed else "yes"
            rows.append([
                f"`{study}`", *(_shown(study, name) for name in recipes[1:]), suite, *(f"{m:.1f}" for m in means), *(f"{p:.1g}" for p in steps), verdict,
            ])  # fmt: skip
    header = [
        "study",
        "robot data alone",
        "co-fine-tuned",
        "average",
        "from scratch, %",
        "robot alone, %",
        "co-fine-tuned, %",
        "p of the first step",
        "p of the second",
        "order",
    ]
    return markdown(header, rows)


def forgetting() -> str:
    """Questions about held-out web pictures before and after."""
    rows = []
    for study, *recipes in FORGETTING:
        answers = read_table(HERE / study / "answers.csv", ANSWERS)
        shares = [100 * float(np.mean([int(r["right"]) for r in answers if r["recipe"] == name])) for name in recipes]
        rows.append(
            [f"`{study}`", _shown(study, recipes[1]), *(f"{s:.1f}" for s in shares), "yes" if shares[1] >= shares[0] - 2 else "no"]
        )
    return markdown(
        ["study", "co-fine-tuned policy", "before, %", "after co-fine-tuning", "after robot data alone", "within two points"], rows
    )


def ladder() -> str:
    """The law's prediction of the largest run, and what size does to success."""
    fits = fit_all(read_rows(HERE / "scaling" / "results.csv"))
    held, most = fits.runs.where(fits.held_out), fits.runs.where(fits.runs.d == fits.runs.d.max())
    said, was = float(fits.law(held.n[0], held.d[0])), float(held.loss.mean())
    assert fits.success is not None
    low, high = interval([float(np.exp(c.slope)) for c in fits.curves])
    ends = [most.where(most.n == n) for n in (most.n.min(), most.n.max())]
    rows = [
        ["sizes x amounts of data, runs", f"{len(set(fits.runs.n))} x {len(set(fits.runs.d))}, {len(fits.runs.name)}"],
        ["loss of the largest run, predicted from the others, measured", f"{said:.3f}, {was:.3f}: {100 * (said / was - 1):+.1f} %"],
        ["success of the smallest, the largest size, at the most data", ", ".join(f"{100 * e.wins.sum() / e.episodes.sum():.1f} % of {e.episodes.sum():.0f}" for e in ends)],
        ["odds of success, ten times the parameters", f"{np.exp(fits.success.slope):.3g} times ({low:.3g} to {high:.3g})"],
    ]  # fmt: skip
    return markdown(["", ""], rows)


def heads() -> str:
    """Tokens, regression, flow matching behind the same plans."""
    rows = []
    for names in HEADS:
        for name in names:
            below = _success("heads", name, "seen") - _success("heads", names[0], "seen")
            p = "" if name == names[0] else f"{_p('heads', names[0], name, 'seen'):.1g}"
            shares = [_with_interval("heads", name, suite) for suite in ("seen", "generalisation", "emergent")]
            rows.append([_shown("heads", name), *shares, f"{below:+.1f}", p])
    return markdown(["head", "seen, %", "generalisation", "emergent", "seen, to tokens", "p"], rows)


def plans() -> str:
    """With and without a plan before the action; times in those of the policy without (medians), both times that they were taken."""
    timed = [read_table(HERE / "chain_of_thought" / name, TIMES) for name in ("latency.csv", "latency_again.csv")]
    rows = []
    for name in ("without_plan", "with_plan", "long", "long_held"):
        shares = [_with_interval("chain_of_thought", name, s) for s in ("seen", "emergent")]
        ms = [[float(np.median([float(r["ms"]) for r in t if r["recipe"] == n])) for n in (name, "without_plan")] for t in timed]
        rows.append([_shown("chain_of_thought", name), *shares, *(f"{own / without:.2f}" for own, without in ms)])
    return markdown(["policy", "seen, %", "multi-hop cells, %", "time of an action", "timed again"], rows)


def made_again() -> str:
    """What ``vla study --again`` found, of every study it was given."""
    rows = []
    for path in sorted(HERE.glob("**/again.csv")):
        if not (path.parent / "study.yaml").is_file():
            continue  # a ladder's
        study = path.parent.relative_to(HERE).as_posix()
        for r in read_table(path, COLUMNS):
            kinds = [f"{r[f'{kind}_other']} of {r[kind]}" if int(r[kind]) else "" for kind in ("episodes", "answers")]
            curves = f"{r['curves_other'] or 'none'}, of {r['curves']}" if r["curves"] else ""
            weights = r["weights"] or ("not kept" if int(r["trained"]) else "")
            rows.append([f"`{study}`", _shown(study, r["recipe"]), "yes" if int(r["trained"]) else "no", *kinds, curves, weights])
    return markdown(["study", "policy", "trained again", "other episodes", "other answers", "other curves", "weights"], rows)


def ladder_again() -> str:
    """What ``vla scale --again`` found: runs with the same numbers in every row, and how far the others' loss is off."""
    was, rows = read_rows(HERE / "scaling" / "results.csv"), []
    loss = {r["run"]: float(r["val_loss_robot"]) for r in was}
    for name, threads in (("again.csv", "as the first time"), ("one_thread.csv", "one, where it was two")):
        new = read_rows(HERE / "scaling" / name)
        other = {run for (run, _), columns in differences(was, new).items() if columns}
        off = [100 * (float(r["val_loss_robot"]) / loss[r["run"]] - 1) for r in new if r["run"] in other]
        runs = {r["run"] for r in new}
        told = f"{len(other)}: {min(off):+.1f} to {max(off):+.1f} %" if other else "none"
        rows.append([f"`{name}`", threads, f"{len(runs)} of {len(loss)}", str(len(runs - other)), told])
    return markdown(
        ["rows", "threads", "runs made again", "the same in every number", "others, and how far their loss is off"], rows
    )


def tables() -> dict[str, str]:
    """Every table of the page, by the name of its place."""
    return {
        "rt1": beside_rt1(),
        "order": order(),
        "forgetting": forgetting(),
        "ladder": ladder(),
        "heads": heads(),
        "plans": plans(),
        "again": made_again(),
        "ladder_again": ladder_again(),
    }


if __name__ == "__main__":
    for place, text in tables().items():
        put(HERE / "README.md", place, text)
