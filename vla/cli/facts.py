"""Facts about policies, runs and data sets, for ``vla inspect``."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from vla.cli.recorded_facts import recorded
from vla.errors import DataError
from vla.utils.disk import size_in_bytes


def describe(path: Path) -> dict[str, Any]:
    """Facts about a path; ``what`` is "policy", "run", "packed data" or "recorded data".

    Raises:
        DataError: nothing of these is there, or it is damaged.
    """
    if (path / "manifest.json").is_file():
        facts = _packed(path)
    elif config := _run_config(path):
        facts = _run(path, config)
    elif (path / "robot_spec.json").is_file():
        facts = _policy(path)
    elif not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    else:
        facts = recorded(path)
    return {"path": str(path), **facts}


def _policy(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    from vla.config import read_yaml
    from vla.policies.base_weights import read_base
    from vla.policies.checkpoint import read_robot_specs

    base = read_base(path)
    specs, config = read_robot_specs(path), read_yaml(path / "policy.yaml")
    weights = path / "model.safetensors"
    with safe_open(weights, "numpy") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    parts = {k: v for k, v in config.items() if isinstance(v, dict) and ("name" in v)}
    return {
        "what": "policy",
        "kind": config.get("name"),
        "components": {k: _component(v) for k, v in parts.items()},
        "parameters": sum(map(prod, shapes)),
        "base": None if base is None else str(base),
        "bytes": size_in_bytes(path),
        "versions": next(iter(specs.values())).versions,
        "robots": {name: spec.to_dict() for name, spec in specs.items()},
        "text": {name: str(spec) for name, spec in specs.items()},
    }


def _component(config: dict[str, Any]) -> str:
    """``timm vit_tiny_patch16_224``: a component's name and its model."""
    inner = config.get("config")
    architecture = inner.get("model_type") if isinstance(inner, dict) else None
    model = config.get("model") or architecture
    return f"{config['name']} {model}" if model else str(config["name"])


def _run_config(path: Path) -> dict[str, Any]:
    """The configuration of a training run; empty if the folder is none.

    Data sets and other programs have files called config.yaml too.
    """
    from vla.config import read_yaml

    file = path / "config.yaml"
    config = read_yaml(file) if file.is_file() else {}
    data, train = config.get("data"), config.get("train")
    return config if isinstance(data, dict) and isinstance(train, dict) else {}


def _run(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    from vla.training.curves import read_curves

    curves, options = read_curves(path), config["train"]
    losses = {n: p for n, p in curves.items() if n in ("train/loss", "val/loss") and p}
    reached = max((points[-1][0] for points in curves.values() if points), default=0)
    facts: dict[str, Any] = {
        "what": "run",
        "finished": (path / "policy").is_dir(),
        "steps": reached,
        "planned_steps": options.get("steps"),
        "data": config["data"].get("datasets") or {},
        "init_from": config.get("init_from"),
        "losses": {
            name: {
                "final": points[-1][1],
                "best": min(value for _, value in points),
                "best_step": min(points, key=lambda point: point[1])[0],
            }
            for name, points in losses.items()
        },
        "bytes": size_in_bytes(path),
    }
    if facts["finished"]:
        facts["policy"] = _policy(path / "policy")
    return facts


def _packed(path: Path) -> dict[str, Any]:
    from vla.data.packed import open_packed

    packed = open_packed(path)
    manifest = packed.manifest
    web = manifest.kind == "web"
    table = [] if web else packed.table()
    return {
        "what": "packed data",
        "kind": "web samples" if web else "robot episodes",
        "samples": manifest.samples,
        "steps": manifest.steps,
        "shards": len(manifest.shards),
        "bytes": size_in_bytes(path),
        "cameras": {camera: list(manifest.image_size) for camera in manifest.cameras},
        "image_fit": manifest.image_fit,
        "rate_hz": manifest.action_space.rate_hz if manifest.action_space else None,
        "actions": _ranges(manifest),
        "state": list(manifest.state_names),
        "state_dims": len(manifest.statistics.get("state", {}).get("mean", [])),
        "instructions": len(table),
        "tasks": [{"text": t, "train": train, "val": val} for t, train, val in table],
        "train": len(packed.rows("train")),
        "val": len(packed.rows("val")),
        "left_out": manifest.quarantined,
        "benchmark": manifest.benchmark.get("name", ""),
        "notes": [*([_first_question(packed)] if web else []), *manifest.notes],
    }


def _first_question(packed: Any) -> str:
    """The first question of packed web samples, and its answer."""
    from vla.data.samples import read_json

    first = read_json(next(packed.samples()))["qa"][0]
    return f"the first question: {first['question']!r}, answer {first['answer']!r}"


def _ranges(manifest: Any) -> list[dict[str, Any]]:
    space, known = manifest.action_space, manifest.statistics.get("actions", {})
    if space is None:
        return []
    rows = []
    for k, (name, unit) in enumerate(zip(space.names, space.units, strict=True)):
        found = {c: known[c][k] for c in ("min", "max", "mean", "std") if c in known}
        rows.append({"name": name, "unit": unit, **found, "binary": name in space.binary})
    return rows
