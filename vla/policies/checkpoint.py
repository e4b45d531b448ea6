"""Save and load whole policies: weights, resolved configuration, tokenizer and robot specs.

Loading needs only the folder and never downloads.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vla.config import build, plain
from vla.errors import DataError
from vla.models.decoders.tokenizer import load_tokenizer
from vla.models.pretrained import offline
from vla.policies.spec import RobotSpec
from vla.policies.untrusted import MemoryLimit, read_saved_config
from vla.utils.device import resolve
from vla.utils.io import read_json, sync_folder, sync_tree, write_json

FILES = ("model.safetensors", "policy.yaml", "robot_spec.json", "tokenizer")


def save_policy(policy: Any, config: dict[str, Any], directory: str | Path) -> Path:
    """Write the whole policy and return its folder; an old policy in the folder is replaced.

    The policy is written under a temporary name and renamed at the end. The old policy stays whole
    until then. After a kill between two renames ``load_policy`` finds it as ``NAME.old``.

    Args:
        policy: the policy.
        config: the section ``policy:`` from which it was built.
        directory: the folder.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the old policy is unchanged.
    """
    directory = Path(directory)
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write_policy(policy, config, temporary)
        sync_tree(temporary)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # The Rust libraries of weights and tokenizers have no OSError.
        if isinstance(error, OSError) or "os error" in str(error):
            raise OSError(
                f"{directory}: the policy was not saved ({error}); free space and try again"
            ) from error
        raise
    old = _old(directory)
    if directory.exists():
        shutil.rmtree(old, ignore_errors=True)
        directory.replace(old)
    temporary.replace(directory)
    sync_folder(directory.parent)
    shutil.rmtree(old, ignore_errors=True)
    return directory


def _old(directory: Path) -> Path:
    """The name of an old policy while a new one takes its place."""
    return directory.with_name(directory.name + ".old")


def _write_policy(policy: Any, config: dict[str, Any], folder: Path) -> None:
    """Write the files of a policy."""
    weights, written = {}, set()
    for name, tensor in full_state(policy).items():
        if name.startswith("metrics."):
            continue
        if tensor.data_ptr() not in written:  # tied weights are written once
            written.add(tensor.data_ptr())
            weights[name] = tensor.contiguous()
    save_file(weights, folder / "model.safetensors")
    (folder / "policy.yaml").write_text(
        yaml.safe_dump(resolved_config(policy, config), sort_keys=False), encoding="utf-8"
    )
    specs = {name: spec.to_dict() for name, spec in policy.specs.items()}
    write_json(folder / "robot_spec.json", {"robots": specs})
    policy.text_processor.save_pretrained(folder / "tokenizer")


def full_state(policy: Any) -> dict[str, torch.Tensor]:
    """The state dict with 4-bit weights converted to float32."""
    state = policy.state_dict()
    for name, module in policy.named_modules():
        if type(module._parameters.get("weight")).__name__ == "Params4bit":
            from transformers.integrations.bitsandbytes import dequantize_bnb_weight

            state = {k: v for k, v in state.items() if not k.startswith(f"{name}.weight")}
            state[f"{name}.weight"] = dequantize_bnb_weight(module.weight).float()
    return state


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


def find_policy(directory: str | Path) -> Path:
    """The folder of a saved policy, with all its files.

    Raises:
        DataError: a file is missing.
    """
    directory = Path(directory)
    if not directory.exists() and _old(directory).is_dir():  # killed between two renames
        directory = _old(directory)
    for name in FILES:
        if not (directory / name).exists():
            inside = directory / "policy"
            advice = f"did you mean {inside}?" if inside.is_dir() else "save or copy it again"
            raise DataError(
                f"{directory / name}: missing; a saved policy has {', '.join(FILES)}; {advice}"
            )
    return directory


def load_policy(directory: str | Path, device: str = "auto") -> Any:
    """The saved policy in evaluation mode; no code of the folder runs, and nothing is downloaded.

    Args:
        directory: folder of the policy.
        device: ``auto`` takes a GPU if there is one.

    Raises:
        DataError: a file is missing or damaged, the weights do not fit the configuration or are not
            finite, or the configuration names something to load.
        ValueError: an unknown device.
    """
    directory, device = find_policy(directory), resolve(device)
    config, specs = read_saved_config(directory / "policy.yaml"), read_robot_specs(directory)
    folder = directory / "tokenizer"
    with offline():
        tokenizer = _read_tokenizer(folder)
        try:
            with MemoryLimit(directory / "model.safetensors"):
                policy = build(
                    "policy",
                    config,
                    f"{directory / 'policy.yaml'}: policy",
                    specs=specs,
                    tokenizer=tokenizer,
                    folder=folder,
                    pretrained=False,
                )
        except MemoryError as error:
            raise DataError(
                f"{directory / 'policy.yaml'}: {error}; save or copy the policy again"
            ) from error
    _load_weights(policy, read_weights(directory), directory)
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


def _load_weights(policy: Any, weights: dict[str, torch.Tensor], directory: Path) -> None:
    """Copy the weights into the policy; DataError unless they fit exactly."""
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise DataError(
                f"{directory}: the weight {name} is not finite; save or copy the policy again"
            )
    missing, unexpected = policy.load_state_dict(weights, strict=False)
    state = policy.state_dict()
    present = {t.data_ptr() for n, t in state.items() if n in weights}
    lost = [n for n in missing if state[n].data_ptr() not in present]  # tied weights are not lost
    if lost or unexpected:
        raise DataError(
            f"{directory}: the weights do not fit policy.yaml: missing {lost[:3]}, "
            f"unexpected {list(unexpected)[:3]}; save or copy the policy again"
        )
    # A library version that ties two weights which were separate overwrites one of them.
    changed = [n for n, t in weights.items() if not torch.equal(state[n], t)]
    if changed:
        raise DataError(
            f"{directory}: {changed[0]} is overwritten by another weight in this version of "
            "transformers; install the version in robot_spec.json"
        )


def read_weights(directory: Path) -> dict[str, torch.Tensor]:
    """The weights of a saved policy by name; DataError if they are missing or damaged."""
    try:
        return load_file(directory / "model.safetensors")
    except (SafetensorError, FileNotFoundError) as error:
        raise DataError(
            f"{directory / 'model.safetensors'}: missing or damaged ({error}); "
            "save or copy the policy again"
        ) from error
