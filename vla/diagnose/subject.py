"""What is diagnosed: a policy, its training run if known, and a packed data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vla.data.manifest import NAME, Manifest, load_manifest
from vla.errors import DataError
from vla.policies.bound import BoundPolicy
from vla.policies.checkpoint import load_policy


@dataclass(frozen=True)
class Subject:
    """A policy bound to one robot, and the data it is compared with."""

    policy: BoundPolicy
    folder: Path  # of the saved policy
    data: Path  # of the packed data
    manifest: Manifest
    training: tuple[Path, ...]  # data sets of this robot in the training run; empty: unknown
    cameras: tuple[str, ...] = ()  # of the training run, in order; empty: unknown

    @property
    def is_training_data(self) -> bool:
        """True if the robot's statistics come from this data, alone or with other data sets."""
        return self.data.resolve() in [p.resolve() for p in self.training]


def open_subject(path: Path, data: Path | None, robot: str | None = None) -> Subject:
    """Load a run or a policy.

    Args:
        path: folder of a training run, or of a saved policy.
        data: packed data; None: the first data set of the run.
        robot: may be None if the policy has one robot, or if one was trained on ``data``.

    Raises:
        DataError: neither a run nor a policy, a run without a policy, or unknown data.
        ValueError: an unknown robot, or several robots and none is named.
    """
    folder = _policy_folder(path)
    config = _run_config(folder)
    policy = load_policy(folder)
    own: dict[str, list[Path]] = {}  # robot -> its data sets
    for name, place in (config.get("datasets") or {}).items():
        own.setdefault((config.get("robots") or {}).get(name, name), []).append(Path(place))
    if robot is None and data is not None and len(policy.specs) > 1:
        same = [r for r, ps in own.items() if data.resolve() in [p.resolve() for p in ps]]
        robot = same[0] if same else None
    bound = policy.robot(robot)
    training = tuple(own.get(bound.robot, ()))
    if data is None:
        data = _default_data(path, training)
    manifest = load_manifest(data)
    if manifest.action_space is None:
        raise DataError(f"{data}: web images; give robot episodes with --data")
    names, theirs = manifest.action_space.names, bound.spec.action_space.names
    if len(names) != len(theirs):
        raise DataError(
            f"{data}: {len(names)} action dims ({', '.join(names)}), the policy gives "
            f"{len(theirs)} ({', '.join(theirs)}); give the data of this robot with --data"
        )
    cameras = _run_cameras(config, training, bound.robot)
    return Subject(bound, folder, data, manifest, training, cameras)


def _policy_folder(path: Path) -> Path:
    for folder in (path, path / "policy"):
        if (folder / "policy.yaml").is_file():
            return folder
    if (path / "config.yaml").is_file():
        raise DataError(
            f"{path}: a training run without a saved policy; finish it with the same `vla train`"
        )
    if (path / NAME).is_file():
        raise DataError(f"{path}: packed data; give a run or a policy, and the data with --data")
    raise DataError(f"{path}: expected a training run or a saved policy (policy.yaml)")


def _run_config(folder: Path) -> dict[str, Any]:
    """The section ``data`` of the training run around a policy; empty if there is none."""
    file = folder.parent / "config.yaml"
    if not file.is_file():
        return {}
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not YAML ({error}); copy the run again") from error
    data = config.get("data") if isinstance(config, dict) else None
    return data if isinstance(data, dict) else {}


def _run_cameras(config: dict[str, Any], training: tuple[Path, ...], robot: str) -> tuple[str, ...]:
    """Cameras of a robot as the configuration names them, else as its first data set has them."""
    robots = config.get("robots") or {}
    own = [n for n in config.get("datasets", {}) if robots.get(n, n) == robot]
    named = (config.get("cameras") or {}).get(own[0]) if own else None
    named = named or (config.get("window") or {}).get("cameras")
    if named:
        return tuple(named)
    known = training and (training[0] / NAME).is_file()
    return load_manifest(training[0]).cameras if known else ()


def _default_data(path: Path, training: tuple[Path, ...]) -> Path:
    if not training:
        raise DataError(f"{path}: no training run beside the policy; name its data with --data")
    if not (training[0] / NAME).is_file():
        raise DataError(
            f"{training[0]}: the training data of {path} is not here; run the command in the "
            "folder of the training, or name the data with --data"
        )
    return training[0]
