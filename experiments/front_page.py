"""The results table of the repository's README.md, from the study ``emergent``.

Usage: python experiments/front_page.py
"""

from __future__ import annotations

from pathlib import Path

from vla.experiments.study.averages import group_share, groups_of
from vla.experiments.study.config import load_study
from vla.experiments.study.summaries import read_results
from vla.utils.csv_tables import markdown, put

HERE = Path(__file__).parent
ROWS = {
    "rt1_longer": "RT-1 (three times the robot samples)",
    "scratch_long": "VLA from scratch, robot data",
    "robot_only_long": "VLA pretrained on web data, robot data",
    "cofinetuned_weighted4_long": "VLA pretrained on web data, co-fine-tuned",
    "cofinetuned_weighted4_long_hysteresis": "the same with plan hysteresis",
}
GROUPS = ("seen", "generalisation", "emergent")


def tables() -> dict[str, str]:
    """Table name -> Markdown: success in % by task group."""
    config = load_study(HERE / "emergent" / "study.yaml")
    results, groups = read_results(HERE / "emergent"), groups_of(config.selected_tasks())
    rows = []
    for recipe, label in ROWS.items():
        shares = [group_share(results.success[recipe], groups[g]) for g in GROUPS]
        rows.append([label, *("" if s is None else f"{100 * s:.1f}" for s in shares)])
    return {"results": markdown(["policy", *(f"{g}, %" for g in GROUPS)], rows)}


if __name__ == "__main__":
    for name, text in tables().items():
        put(HERE.parent / "README.md", name, text)
