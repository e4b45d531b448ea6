"""Save and load whole policies: weights, resolved configuration, tokenizer and robot specs.

Loading needs only the folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from vla.config import build, plain
from vla.errors import DataError
from vla.models.decoders.tokenizer import load_tokenizer
from vla.models.pretrained import PretrainedError, offline
from vla.policies.base_weights import base_weights, read_base, split_weights
from vla.policies.folder import BASE, WEIGHTS, find_policy, old_name
from vla.policies.spec import RobotSpec
from vla.policies.untrusted import MemoryLimit, read_saved_config
from vla.policies.weights import own_weights, read_weights, set_weights, write_weights
from vla.utils.device import resolve
from vla.utils.io import read_json, sync_folder, sync_tree, write_json


def save_policy(
    policy: Any, config: dict[str, Any], directory: str | Path, base: str | None = None
) -> Path:
    """Write the whole policy and return its folder; an old policy in the folder is replaced.

    The policy is written under a temporary name and renamed at the end. The old policy stays whole
    until then. After a kill between two renames ``load_policy`` finds it as ``NAME.old``.

    Args:
        policy: the policy.
        config: the section ``policy:`` from which it was built.
        directory: the folder.
        base: leave weights out that are those of this base, see ``vla.policies.base_weights``;
            None: save all.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old policy is unchanged.
    """
    directory = Path(directory)
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write_policy(policy, config, temporary, base)
        sync_tree(temporary)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # The Rust libraries of weights and tokenizers have no OSError.
        if isinstance(error, OSError) or "os error" in str(error):
            raise OSError(
                f"{directory}: the policy was not saved ({error}); free space and try again"
            ) from error
        raise
    old = old_name(directory)
    if directory.exists():
        shutil.rmtree(old, ignore_errors=True)
        directory.replace(old)
    temporary.replace(directory)
    sync_folder(directory.parent)
    shutil.rmtree(old, ignore_errors=True)
    return directory


def _write_policy(policy: Any, config: dict[str, Any], folder: Path, base: str | None) -> None:
    """Write the files of a policy."""
    resolved = resolved_config(policy, config)
    (folder / "policy.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    specs = {name: spec.to_dict() for name, spec in policy.specs.items()}
    write_json(folder / "robot_spec.json", {"robots": specs})
    policy.text_processor.save_pretrained(folder / "tokenizer")
    weights = own_weights(policy)
    if base is not None:
        weights, left_out = split_weights(
            weights, base, lambda: _build(folder, resolved, pretrained=True)
        )
        write_json(folder / BASE, left_out.to_dict())
    write_weights(weights, folder)


def _build(directory: Path, config: dict[str, Any], pretrained: bool) -> Any:
    """A policy of the files in a folder, with its pretrained or random weights."""
    if pretrained:  # their models have the architecture
        config = {k: _of_model(part) for k, part in config.items()}
    folder = directory / "tokenizer"
    return build(
        "policy",
        config,
        f"{directory / 'policy.yaml'}: policy",
        specs=read_robot_specs(directory),
        tokenizer=_read_tokenizer(folder),
        folder=folder,
        pretrained=pretrained,
    )


def _of_model(part: Any) -> Any:
    named = isinstance(part, dict) and part.get("model") and "config" in part
    return {k: v for k, v in part.items() if k != "config"} if named else part


def resolved_config(policy: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the values that its components determined when they were built.

    Examples are the architecture of a pretrained model and the ids of action tokens. With them,
    loading needs no model hub, no other folder and no corpus.
    """
    out = plain(config)
    for slot, part in out.items():
        # The heads of all robots use the same tokens, so the first one speaks for all.
        component: Any = policy.heads[0] if slot == "head" else getattr(policy, slot, None)
        if isinstance(part, dict) and hasattr(component, "resolved_config"):
            part.update(plain(component.resolved_config()))
    return out


def load_policy(directory: str | Path, device: str = "auto") -> Any:
    """The saved policy in evaluation mode; no code of the folder runs.

    Nothing is downloaded except a policy on the hub itself. A policy without the weights of its
    base needs them on this machine, see ``vla.policies.base_weights``.

    Args:
        directory: folder of the policy, or ``hf://owner/name``.
        device: ``auto`` takes a GPU if there is one.

    Raises:
        DataError: a file or the base is missing or damaged, the weights do not fit the
            configuration or are not finite, or the configuration names something to load.
        ValueError: an unknown device.
    """
    directory, device = find_policy(directory), resolve(device)
    config, base = read_saved_config(directory / "policy.yaml"), read_base(directory)
    size = 0 if base is None else base.size
    try:
        with offline(), MemoryLimit(directory / WEIGHTS, size):
            policy = _build(directory, config, base is not None and not base.policy)
    except MemoryError as error:
        raise DataError(
            f"{directory / 'policy.yaml'}: {error}; save or copy the policy again"
        ) from error
    except PretrainedError as error:
        raise DataError(f"{directory / BASE}: the base is not here: {error}") from error
    weights = read_weights(directory)
    if base is not None:
        with offline():
            weights |= base_weights(base, policy, directory)
    set_weights(policy, weights, directory)
    return policy.to(device).eval()


def _read_tokenizer(folder: Path) -> Any:
    try:
        return load_tokenizer(folder)
    except Exception as error:  # tokenizers raises plain exceptions
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{folder}: not a tokenizer ({reason[0]}); save or copy the policy again"
        ) from error


def read_robot_specs(directory: Path) -> dict[str, RobotSpec]:
    """The robots of a saved policy by name.

    Raises:
        DataError: ``robot_spec.json`` is missing, damaged or of another version.
    """
    path, fix = directory / "robot_spec.json", "save or copy the policy again"
    if not path.is_file():
        raise DataError(f"{path}: missing; {fix}")
    robots = read_json(path, fix).get("robots")
    if not isinstance(robots, dict) or not robots:
        raise DataError(f"{path}: expected the key robots with at least one robot; {fix}")
    try:
        return {name: RobotSpec.from_dict(spec, f"robots.{name}") for name, spec in robots.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: {error}; {fix}") from error
