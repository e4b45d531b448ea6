"""Cost of a ladder's runs, and the printed plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla.config import load_config
from vla.errors import ConfigError
from vla.experiments.scaling.ladder import ScaleConfig, SweepRun
from vla.utils.text import count, duration


def costs(
    config: ScaleConfig, folder: Path, steps: int = 3
) -> dict[tuple[str, str], dict[str, float]]:
    """Parameters, FLOPs, steps and predicted seconds of a run of every (size, data).

    Steps are timed on this machine. Keys (size, "") are the pretraining runs.

    Raises:
        ConfigError: two sizes have the same number of parameters.
    """
    from vla.training.measure import measure
    from vla.training.run import RunConfig

    found: dict[tuple[str, str], dict[str, float]] = {}
    for size, changes in config.sizes.items():
        kinds = [(config.run, config.amounts(size))] + (
            [(config.pretrain, {"": []})] if config.pretrain else []
        )
        for path, amounts in kinds:
            cost = measure(str(folder / path), [*changes, *next(iter(amounts.values()))], steps)
            _check_growth(found, size, next(iter(amounts)), cost["parameters"], config)
            for data, own in amounts.items():
                length = load_config(folder / path, [*changes, *own], RunConfig).train.steps
                found[size, data] = {
                    "parameters": cost["parameters"],
                    "flops": float(cost["flops_step"]) * length,
                    "seconds": cost["step_s"] * length
                    + (config.evaluation_seconds if data else 0.0),
                    "steps": length,
                }
    return found


def _check_growth(
    found: dict[tuple[str, str], dict[str, float]],
    size: str,
    data: str,
    parameters: int,
    config: ScaleConfig,
) -> None:
    """Refuse a size with as many parameters as an earlier one: a law of sizes needs both."""
    for other in config.sizes:
        if other != size and found.get((other, data), {}).get("parameters") == parameters:
            raise ConfigError(
                f"sizes.{size}: the policy has {parameters:,} parameters, as many as "
                f"sizes.{other}; change its width or layers "
                f"({other}: {config.sizes[other]}, {size}: {config.sizes[size]})"
            )


def show_plan(
    planned: list[SweepRun], todo: list[SweepRun], cost: dict[tuple[str, str], dict[str, float]]
) -> None:
    """Print every run with its FLOPs, its predicted time and the sum of the times to do."""
    from vla.utils.tables import print_table

    open_names, rows = {r.name for r in todo}, []
    left = 0.0
    for sweep_run in planned:
        known: dict[str, Any] = cost.get((sweep_run.size, sweep_run.data), {})
        left += known.get("seconds", 0.0) if sweep_run.name in open_names else 0.0
        rows.append(
            {
                "run": sweep_run.name,
                "parameters": f"{known['parameters']:,}" if known else "",
                "FLOPs": f"{known['flops']:.3g}" if known else "",
                "time": duration(known["seconds"]) if known else "",
                "state": "to do" if sweep_run.name in open_names else "done",
            }
        )
    print_table(
        rows,
        f"{len(todo)} of {count(len(planned), 'run')} to do"
        + (f"; about {duration(left)} one after the other" if todo else ""),
    )
