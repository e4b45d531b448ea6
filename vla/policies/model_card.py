"""The model card of a saved policy, written from the policy and the run that trained it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from vla.policies.checkpoint import read_robot_specs
from vla.policies.spec import RobotSpec
from vla.utils.csv_tables import markdown, read_table

_TAGS = ["robotics", "vla", "vision-language-action"]


def model_card(folder: Path, name: str, licence: str | None = None) -> str:
    """Markdown: robots, components, data, metrics and usage.

    Data and metrics are those of the run, if the folder is still in the run's folder.

    Args:
        folder: of the policy.
        name: ``owner/name`` on the hub.
        licence: identifier of the licence on the hub; None: not stated.
    """
    config = yaml.safe_load((folder / "policy.yaml").read_text(encoding="utf-8"))
    head: dict[str, Any] = {"library_name": "vla", "pipeline_tag": "robotics", "tags": _TAGS}
    if licence:
        head["license"] = licence
    parts = [f"---\n{yaml.safe_dump(head, sort_keys=False)}---", f"# {name.partition('/')[2]}"]
    parts.append("A vision-language-action policy trained with `vla`.")
    for robot, spec in read_robot_specs(folder).items():
        parts += [f"## Robot: {robot}", _interface(spec)]
    parts += ["## Components", _components(config)]
    run = folder.parent
    if data := _read_json(run / "data.json"):
        rows = [[n, str(d.get("samples", "")), str(d.get("steps", ""))] for n, d in data.items()]
        parts += ["## Training data", markdown(["data set", "samples", "steps"], rows)]
    if summary := _read_json(run / "summary.json"):
        metrics = summary.get("last_validation") or {}
        rows = [[metric, f"{value:.4g}"] for metric, value in sorted(metrics.items())]
        text = f"{summary['steps']} optimiser steps; weights of the {summary['weights']}."
        parts += ["## Training", text, *([markdown(["validation", "value"], rows)] if rows else [])]
    if evaluations := sorted(run.glob("*/tasks.csv")):
        parts += ["## Evaluation", *map(_evaluation, evaluations)]
    parts += ["## Use", _USE.format(name=name)]
    return "\n\n".join(parts) + "\n"


_USE = """```python
from vla.policies.checkpoint import load_policy

policy = load_policy("hf://{name}")
actions = policy.act(image, "instruction")  # (H, A), in robot units
```

`vla serve hf://{name}` serves it to robot programs, `vla info hf://{name}` states its interface."""


def _interface(spec: RobotSpec) -> str:
    """Inputs and actions of a robot."""
    space = spec.action_space
    size = "x".join(map(str, spec.image_size)) if spec.image_size else "any size"
    lines = [
        f"- cameras: {', '.join(spec.cameras) or 'none'} ({size} px)",
        f"- state: {spec.state_dim} dimensions" if spec.state_dim else "- state: not used",
        f"- chunks of {spec.horizon} actions at {space.rate_hz:g} Hz",
    ]
    rows = [
        [name, unit, f"{low:g}", f"{high:g}"]
        for name, unit, low, high in zip(
            space.names, space.units, space.low, space.high, strict=True
        )
    ]
    return "\n".join(lines) + "\n\n" + markdown(["action", "unit", "low", "high"], rows)


def _components(config: dict[str, Any]) -> str:
    slots = {k: v for k, v in config.items() if isinstance(v, dict) and "name" in v}
    rows = [[slot, str(v["name"]), str(v.get("model") or "")] for slot, v in slots.items()]
    return markdown(["slot", "component", "model"], rows)


def _evaluation(path: Path) -> str:
    rows = read_table(path)
    return f"`{path.parent.name}`:\n\n" + markdown(list(rows[0]), [list(r.values()) for r in rows])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
