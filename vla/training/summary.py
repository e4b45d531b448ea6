"""The end of a training run: figures, files and the next commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla.policies.checkpoint import read_robot_specs
from vla.training.config import RunConfig
from vla.training.curves import curves_table
from vla.training.run_folder import POLICY, SUMMARY
from vla.utils.csv_tables import write_table
from vla.utils.io import write_json

CURVES = "curves.csv"


def write_summary(
    folder: Path,
    config: RunConfig,
    step: int,
    last: dict[str, float],
    best: dict[str, float],
) -> None:
    """Write ``summary.json`` and ``curves.csv`` of a finished run.

    Args:
        step: the last optimiser step.
        last, best: metrics of the last and the best validation; empty without one.
    """
    rows = curves_table(folder)
    if rows:
        write_table(folder / CURVES, rows, tuple(rows[0]))
    summary = {
        "steps": step,
        "steps_wanted": config.train.steps,
        "stopped_early": step < config.train.steps,
        "last_validation": last,
        "best_validation": best,
        "weights": "best validation" if config.train.patience else "last step",
    }
    write_json(folder / SUMMARY, summary)


def describe(folder: Path, config: RunConfig, summary: dict[str, Any]) -> str:
    """The report of a finished run, several lines."""
    policy, lines = folder / POLICY, []
    if summary:
        early = f" (of {summary['steps_wanted']}; no improvement since the best validation)"
        end = early if summary["stopped_early"] else ""
        lines.append(f"finished: {summary['steps']} steps{end}, weights: {summary['weights']}")
        for kind in ("last", "best"):
            if metrics := summary[f"{kind}_validation"]:
                lines.append(f"  {kind} validation  {figures(metrics)}")
    recorded_in = any(spec.benchmark for spec in read_robot_specs(policy).values())
    simulated = [f"              vla eval {policy} --episodes 50"] if recorded_in else []
    logs = f"tensorboard --logdir {folder / 'tensorboard'}"
    data = next(iter(config.data.datasets.values()))
    lines += [
        f"  policy      {policy}",
        f"  curves      {folder / CURVES}, or: {logs}",
        f"  evaluate    vla eval-offline {policy} {data}",
        *simulated,
        f"  serve       vla serve {policy}",
    ]
    return "\n".join(lines)


def already_finished(folder: Path, config: RunConfig, summary: dict[str, Any]) -> str:
    """The line for a repeated call of a finished run."""
    step = summary.get("steps", config.train.steps)
    return f"{folder / POLICY}: already finished at step {step}; raise train.steps to continue"


def figures(metrics: dict[str, float]) -> str:
    """Step, loss and accuracy of a validation."""
    shown = ("val/loss", "val/accuracy")
    names = [n for n in metrics if n.startswith(shown) or n.endswith("accuracy")]
    step = f"step {metrics['step']:.0f}: " if "step" in metrics else ""
    return step + ", ".join(f"{n.removeprefix('val/')} {metrics[n]:.4g}" for n in sorted(names))
