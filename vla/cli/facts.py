"""Facts about policies, runs and data sets, for ``vla inspect``."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import DataError
from vla.utils.text import count

SAMPLED = 50  # episodes of a recorded data set that are read


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
        facts = _recorded(path)
    return {"path": str(path), **facts}


def _policy(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    from vla.config import read_yaml
    from vla.policies.checkpoint import read_robot_specs

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
        "bytes": _bytes(path),
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
        "bytes": _bytes(path),
    }
    if facts["finished"]:
        facts["policy"] = _policy(path / "policy")
    return facts


def _packed(path: Path) -> dict[str, Any]:
    from vla.data.packed import open_packed

    packed = open_packed(path)
    manifest = packed.manifest
    table = packed.table()
    return {
        "what": "packed data",
        "kind": "web samples" if manifest.kind == "web" else "robot episodes",
        "samples": manifest.samples,
        "steps": manifest.steps,
        "shards": len(manifest.shards),
        "bytes": _bytes(path),
        "cameras": {camera: list(manifest.image_size) for camera in manifest.cameras},
        "image_fit": manifest.image_fit,
        "rate_hz": manifest.action_space.rate_hz if manifest.action_space else None,
        "actions": _ranges(manifest),
        "state": list(manifest.state_names),
        "state_dims": len(manifest.statistics.get("state", {}).get("mean", [])),
        "instructions": len(table),
        "tasks": [{"text": t, "train": train, "val": val} for t, train, val in table],
        "train": sum(row[1] for row in table),
        "val": sum(row[2] for row in table),
        "left_out": manifest.quarantined,
        "benchmark": manifest.benchmark.get("name", ""),
        "notes": list(manifest.notes),
    }


def _ranges(manifest: Any) -> list[dict[str, Any]]:
    space, known = manifest.action_space, manifest.statistics.get("actions", {})
    if space is None:
        return []
    rows = []
    for k, (name, unit) in enumerate(zip(space.names, space.units, strict=True)):
        found = {c: known[c][k] for c in ("min", "max", "mean", "std") if c in known}
        rows.append({"name": name, "unit": unit, **found, "binary": name in space.binary})
    return rows


def _recorded(path: Path) -> dict[str, Any]:
    """Facts about recorded data; without actions if no mapping fits, with the reason in a note."""
    from vla.data.mapping import Mapping
    from vla.data.readers import open_reader
    from vla.data.robot import RobotSource

    reader = open_reader(path)
    facts = {
        "what": "recorded data",
        "kind": reader.format,
        "samples": len(reader),
        "bytes": _bytes(path),
        "fields": {
            n: count(f.dims, "number") if f.dims else f.kind for n, f in reader.fields.items()
        },
    }
    try:
        return facts | _mapped(RobotSource(str(path), skip_missing=True))
    except ValueError as error:
        notes = [*reader.notes, str(error)]
    try:  # the rate is often the only thing that is missing
        found = _mapped(RobotSource(str(path), Mapping(fps=1.0), skip_missing=True))
        return facts | found | {"rate_hz": None, "notes": notes}
    except ValueError:
        unknown = {"cameras": {}, "actions": [], "tasks": [], "instructions": 0, "sampled": 0}
        return facts | unknown | {"notes": notes}


def _mapped(source: Any) -> dict[str, Any]:
    """What the default mapping makes of the first episodes."""
    recordings = [source.reader[n] for n in range(min(len(source), SAMPLED))]
    tasks: dict[str, int] = {}
    for recording in recordings:
        for text in dict.fromkeys(source.mapping.instructions(recording)):
            tasks[text] = tasks.get(text, 0) + 1
    rows = [source.mapping.actions(r, np.arange(r.steps)) for r in recordings if r.steps]
    values = np.concatenate(rows).astype(float)
    sizes = {}
    for camera in source.mapping.cameras:
        image = next(iter(source.images(recordings[0], camera, [0])))
        sizes[camera] = list(image.shape[:2])
    space = source.action_space
    return {
        "sampled": len(recordings),
        "steps": sum(r.steps for r in recordings),
        "cameras": sizes,
        "rate_hz": space.rate_hz,
        "actions": [
            {
                "name": name,
                "unit": unit,
                "min": float(np.nanmin(values[:, k])),
                "max": float(np.nanmax(values[:, k])),
                "mean": float(np.nanmean(values[:, k])),
                "std": float(np.nanstd(values[:, k])),
                "binary": name in space.binary,
            }
            for k, (name, unit) in enumerate(zip(space.names, space.units, strict=True))
        ],
        "state": list(source.mapping.state_names),
        "state_dims": len(source.mapping.state_names),
        "instructions": len(tasks),
        "tasks": [{"text": t, "episodes": n} for t, n in sorted(tasks.items(), key=_by_count)],
        "notes": list(source.notes),
    }


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return (-item[1], item[0])


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())
