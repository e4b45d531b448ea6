"""Compare ``vla plan`` with the measured rows of results.csv; write the table of the recipes.

Usage: python experiments/gpu/plans.py [--recipes | --table]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from run import HERE, SHAPES, data_sets, pack_small

from vla.config import load_config
from vla.training.config import RunConfig
from vla.training.planning.plan import Plan, plan
from vla.training.planning.report import HEADER, row
from vla.training.planning.survey import make_survey
from vla.utils.csv_tables import markdown, put, read_table, write_table
from vla.utils.progress import track

RECIPES = {
    "smollm2_360m_siglip_b": "rtx4090",
    "qwen3_vl_2b_lora": "a100",
    "paligemma2_3b_fsdp": "h100",
}
FOLDER = Path("configs/recipes")
PLANS = HERE / "plans.csv"
COLUMNS = ("size", "quantity", "measured", "planned", "deviation")
QUANTITIES = ("parameters", "flops_step", "peak_memory_mb", "step_s")


def recipe(name: str) -> Plan:
    """The plan of a recipe on its GPU."""
    config = load_config(FOLDER / f"{name}.yaml", [], RunConfig)
    return plan(config, make_survey(config), RECIPES[name])


def recipes_table() -> str:
    """The table of the recipes' README, from their plans in plans.csv of that folder."""
    rows = read_table(FOLDER / "plans.csv", HEADER)
    return markdown(HEADER, [list(r.values()) for r in rows])


def compared(measured: dict[str, str]) -> list[dict[str, str]]:
    """Measured and planned values of one row of results.csv."""
    changes = [f"policy.decoder={measured['size']}", *SHAPES, *data_sets(), "train.batch_size=64"]
    config = load_config(Path("configs/scaling/robot_gpu.yaml"), changes, RunConfig)
    found = plan(config, make_survey(config), "h100")
    planned = {
        "parameters": found.parameters,
        "flops_step": found.gflops_per_row * found.rows_per_gpu * 1e9,
        "peak_memory_mb": found.total * 1024,
        "step_s": 1 / found.steps_per_second,
    }
    rows = []
    for name in QUANTITIES:
        value = measured[name]
        known = value.replace(".", "").isdigit()
        deviation = f"{100 * (planned[name] / float(value) - 1):+.1f} %" if known else ""
        cells = (measured["size"], name, value, f"{planned[name]:.6g}", deviation)
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def table() -> str:
    """The table of the README: planned and measured values."""
    named: dict[str, list[str]] = {}
    for r in read_table(PLANS, COLUMNS):
        if r["quantity"] == "peak_memory_mb":
            text = f"{float(r['planned']) / 1024:.1f}"
            real = r["measured"]
            real = f"{float(real) / 1024:.1f}" if real.isdigit() else real
            named.setdefault(r["size"], []).extend([real, text])
        named.setdefault(r["size"], []).append(r["deviation"] or "-")
    header = [
        "decoder",
        "deviation of parameters",
        "deviation of FLOPs",
        "GiB measured",
        "GiB planned",
        "deviation of memory",
        "deviation of seconds a step",
    ]
    return markdown(header, [[size, *cells] for size, cells in named.items()])


def main() -> None:
    """Write the CSV files and the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="write the READMEs' tables only")
    parser.add_argument("--recipes", action="store_true", help="plan the recipes only")
    options = parser.parse_args()
    if options.recipes:
        rows = []
        for name in track(RECIPES, "plan", unit="recipes"):
            rows.append(dict(zip(HEADER, row(name, recipe(name)), strict=True)))
            write_table(FOLDER / "plans.csv", rows, HEADER)
    elif not options.table:
        pack_small()
        found: list[dict[str, str]] = []
        for measured in track(read_table(HERE / "results.csv"), "plan", unit="sizes"):
            found += compared(measured)
            write_table(PLANS, found, COLUMNS)
    put(FOLDER / "README.md", "plans", recipes_table())
    put(HERE / "README.md", "plans", table())


if __name__ == "__main__":
    main()
