"""Saved policies without the weights of their base: LoRA adapters and what else was trained.

The base is the policy of ``init_from``, or the pretrained models that policy.yaml names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vla.config.quick import components
from vla.errors import ConfigError, DataError
from vla.models.lora import plain_name
from vla.policies.folder import BASE, find_policy
from vla.policies.hub import is_address
from vla.policies.untrusted import read_saved_config
from vla.policies.weights import Weights, read_weights
from vla.utils.io import read_json

PRETRAINED = ""  # the base is the pretrained models of policy.yaml


@dataclass(frozen=True)
class Base:
    """Weights that a saved policy does not contain."""

    policy: str  # saved policy that has them; PRETRAINED: the models of policy.yaml
    weights: dict[str, str]  # name in this policy -> name in the base
    sha256: str  # of these weights
    size: int  # of these weights, bytes

    def to_dict(self) -> dict[str, Any]:
        """For ``base.json``."""
        return asdict(self)

    def __str__(self) -> str:
        return f"the policy {self.policy}" if self.policy else "the models in policy.yaml"


def check_base(config: dict[str, Any], init_from: str | None) -> str:
    """The base of a run's policy.

    Raises:
        ConfigError: it has 4-bit weights, or neither ``init_from`` nor pretrained models.
        DataError: the policy of ``init_from`` is missing or not whole.
    """
    parts = [value for _, _, value in components(config, "policy", "policy")]
    key = "train.saved_weights=changed"
    if any(part.get("quantize") for part in parts):
        raise ConfigError(f"{key}: 4-bit weights are saved in full precision; set it to all")
    if init_from is not None:
        _whole_folder(init_from)
        return init_from if is_address(init_from) else str(Path(init_from).absolute())
    if not any(part.get("model") or part.get("weights") for part in parts):
        raise ConfigError(f"{key}: this policy has neither init_from nor a pretrained model")
    return PRETRAINED


def split_weights(
    weights: Weights, base: str, build_again: Callable[[], Any]
) -> tuple[Weights, Base]:
    """(weights that differ from the base, the others).

    Args:
        weights: of the policy.
        base: a saved policy, or PRETRAINED.
        build_again: builds the policy with its pretrained weights.
    """
    if base:
        available = whole_weights(base)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.seed()  # random weights differ from those of the run
            available = build_again().state_dict()
    shared, found = {}, Weights()
    for name, tensor in weights.items():
        other = name if name in available else plain_name(name)
        theirs = available.get(other)
        if theirs is not None and _equal(tensor, theirs):
            shared[name], found[name] = other, theirs
    size = sum(t.numel() * t.element_size() for t in found.values())
    own = {name: tensor for name, tensor in weights.items() if name not in shared}
    return own, Base(base, shared, _digest(found), size)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu())


def read_base(directory: Path) -> Base | None:
    """The base of a saved policy; None if the policy is whole.

    Raises:
        DataError: ``base.json`` is damaged.
    """
    path = directory / BASE
    if not path.is_file():
        return None
    fix = "save or copy the policy again"
    try:
        base = Base(**read_json(path, fix))
    except TypeError as error:
        raise DataError(f"{path}: {error}; {fix}") from error
    names = base.weights.values() if isinstance(base.weights, dict) else [None]
    right = isinstance(base.policy, str) and type(base.size) is int and base.size >= 0
    if not right or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: expected policy, weights, sha256 and size; {fix}")
    return base


def base_weights(base: Base, policy: Any, directory: Path) -> Weights:
    """The weights of the base by their names in the policy.

    Args:
        base: of a saved policy.
        policy: built with its pretrained weights if the base is PRETRAINED.
        directory: folder of the saved policy.

    Raises:
        DataError: the base is missing, or its weights have changed.
    """
    available = whole_weights(base.policy) if base.policy else policy.state_dict()
    found = {n: available[other] for n, other in base.weights.items() if other in available}
    if len(found) < len(base.weights) or _digest(found) != base.sha256:
        raise DataError(
            f"{directory / BASE}: {base} have other weights than when this policy was trained "
            "(their checksum differs); restore them"
        )
    return found


def whole_weights(policy: str | Path) -> Weights:
    """The weights of a saved policy that has all of them.

    Raises:
        DataError: there is no such policy, it lacks weights, or its file is damaged.
    """
    return read_weights(_whole_folder(policy))


def _whole_folder(policy: str | Path) -> Path:
    directory = find_policy(policy)
    if (directory / BASE).is_file():
        raise DataError(
            f"{directory}: has only the weights that differ from its base; write a whole policy "
            f"with: vla merge {directory} OUT"
        )
    return directory


def check_portable(directory: Path) -> None:
    """Check that another machine can load a saved policy.

    Raises:
        ConfigError: its base is on this machine only.
    """
    base = read_base(directory)
    if base is None or is_address(base.policy):
        return
    config = read_saved_config(directory / "policy.yaml")
    parts = [value for _, _, value in components(config, "policy", "policy")]
    names = [str(part.get(key)) for part in parts for key in ("model", "weights")]
    if base.policy or any(n.startswith("package:") or Path(n).exists() for n in names):
        raise ConfigError(
            f"{directory}: has only the weights that differ from {base}, which are on this "
            f"machine; upload a whole policy, which this writes: vla merge {directory} OUT"
        )


def _digest(weights: Weights) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
