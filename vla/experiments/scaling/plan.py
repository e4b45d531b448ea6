"""Cost of a ladder's runs, and the printed plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla.config import load_config
from vla.experiments.scaling.ladder import ScaleConfig, SweepRun


def costs(
    config: ScaleConfig, folder: Path, steps: int = 3
) -> dict[tuple[str, str], dict[str, float]]:
    """Parameters, FLOPs, steps and predicted seconds of a run of every (size, data).

    Steps are timed on this machine. Keys (size, "") are the pretraining runs.
    """
    from vla.training.measure import measure
    from vla.training.run import RunConfig

    found = {}
    for size, changes in config.sizes.items():
        kinds = [(config.run, config.data)] + (
            [(config.pretrain, {"": []})] if config.pretrain else []
        )
        for path, amounts in kinds:
            cost = measure(str(folder / path), [*changes, *next(iter(amounts.values()))], steps)
            for data, own in amounts.items():
                count = load_config(folder / path, [*changes, *own], RunConfig).train.steps
                found[size, data] = {
                    "parameters": cost["parameters"],
                    "flops": float(cost["flops_step"]) * count,
                    "seconds": cost["step_s"] * count,
                    "steps": count,
                }
    return found


def show_plan(
    planned: list[SweepRun], todo: list[SweepRun], cost: dict[tuple[str, str], dict[str, float]]
) -> None:
    """Print every run with its FLOPs, its predicted hours and the sum of the hours to do."""
    from vla.evaluation.report import print_table

    open_names, rows = {r.name for r in todo}, []
    left = 0.0
    for sweep_run in planned:
        known: dict[str, Any] = cost.get((sweep_run.size, sweep_run.data), {})
        hours = known.get("seconds", 0.0) / 3600
        left += hours if sweep_run.name in open_names else 0.0
        rows.append(
            {
                "run": sweep_run.name,
                "parameters": f"{known['parameters']:,}" if known else "",
                "FLOPs": f"{known['flops']:.3g}" if known else "",
                "hours": f"{hours:.2f}" if known else "",
                "state": "to do" if sweep_run.name in open_names else "done",
            }
        )
    print_table(
        rows,
        f"{len(todo)} of {len(planned)} runs to do; about {left:.1f} hours one after the other",
    )
