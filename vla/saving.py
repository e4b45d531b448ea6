"""Policies on disk: weights, resolved configuration, tokenizer and contract. Loading needs nothing else and never downloads."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vla.config import build
from vla.contract import Contract
from vla.data.manifest import DataError, write_json
from vla.decoders.tokenizer import load_tokenizer
from vla.device import resolve
from vla.tuning import plain_name

FILES = ("model.safetensors", "policy.yaml", "contract.json", "tokenizer")


def save_policy(policy: Any, config: dict[str, Any], directory: str | Path) -> Path:
    """Write the whole policy under a temporary name, then rename; an old policy there is replaced.

    Args:
        config: the resolved ``policy:`` section it was built from.
    """
    import shutil

    directory = Path(directory)
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    weights, seen = {}, set()
    for name, tensor in full_state(policy).items():
        if name.startswith("metrics."):
            continue
        if tensor.data_ptr() not in seen:  # tied weights are written once
            seen.add(tensor.data_ptr())
            weights[name] = tensor.contiguous()
    save_file(weights, temporary / "model.safetensors")
    (temporary / "policy.yaml").write_text(yaml.safe_dump(portable(policy, config), sort_keys=False), encoding="utf-8")
    write_json(temporary / "contract.json", {"robots": {name: c.to_dict() for name, c in policy.contracts.items()}})
    policy.text_processor.save_pretrained(temporary / "tokenizer")
    shutil.rmtree(directory, ignore_errors=True)
    temporary.replace(directory)
    return directory


def full_state(policy: Any) -> dict[str, torch.Tensor]:
    """The state dict, 4-bit weights unpacked."""
    state = policy.state_dict()
    for name, module in policy.named_modules():
        if type(module._parameters.get("weight")).__name__ == "Params4bit":
            from transformers.integrations.bitsandbytes import dequantize_bnb_weight

            state = {k: v for k, v in state.items() if not k.startswith(f"{name}.weight")}
            state[f"{name}.weight"] = dequantize_bnb_weight(module.weight).float()
    return state


def portable(policy: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with what its parts found out when they were made (architectures of pretrained models, overwritten ids), so that
    loading needs no hub, no other folder and no corpus."""
    out = plain(config)
    for slot, part in out.items():
        owner: Any = (
            policy.heads[0] if slot == "head" else getattr(policy, slot, None)
        )  # all robots' heads write with the same tokens
        if isinstance(part, dict) and hasattr(owner, "portable"):
            part.update(plain(owner.portable()))
    return out


def plain(value: Any) -> Any:
    """Tuples to lists and dataclasses to mappings, all the way down, for YAML."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def load_policy(directory: str | Path, device: str = "auto") -> Any:
    """Rebuild a saved policy in evaluation mode, on the GPU where there is one.

    Raises:
        DataError: a file is missing or damaged, or the weights do not fit the configuration.
        ValueError: there is no such device.
    """
    directory, device = Path(directory), resolve(device)
    for name in FILES:
        if not (directory / name).exists():
            raise DataError(f"{directory / name}: missing; a saved policy has {', '.join(FILES)}: save or copy it again")
    config = yaml.safe_load((directory / "policy.yaml").read_text(encoding="utf-8"))
    held = json.loads((directory / "contract.json").read_text(encoding="utf-8"))
    contracts = {name: Contract.from_dict(c) for name, c in held["robots"].items()}
    text = directory / "tokenizer"
    policy = build("policy", config, contracts=contracts, tokenizer=load_tokenizer(text), folder=text, pretrained=False)
    weights = _read_weights(directory)
    missing, unexpected = policy.load_state_dict(weights, strict=False)
    present = {t.data_ptr() for n, t in policy.state_dict().items() if n in weights}
    lost = [n for n in missing if policy.state_dict()[n].data_ptr() not in present]
    if lost or unexpected:
        raise DataError(f"{directory}: weights do not fit policy.yaml: missing {lost[:3]}, unexpected {list(unexpected)[:3]}")
    state = policy.state_dict()
    changed = [n for n, t in weights.items() if not torch.equal(state[n], t)]
    if changed:  # two weights of the file share one place: the library now ties what it did not tie when they were saved
        raise DataError(
            f"{directory}: {changed[0]} cannot keep its own values with this version of transformers; see contract.json for the versions"
        )
    return policy.to(device).eval()


def _read_weights(directory: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(directory / "model.safetensors")
    except (SafetensorError, FileNotFoundError) as error:
        raise DataError(
            f"{directory / 'model.safetensors'}: missing or damaged ({error}); save or copy the policy again"
        ) from error


def start_from(policy: Any, directory: str | Path) -> None:
    """Copy a saved policy's vision, connector and decoder into a fresh one; the action head keeps its own start.

    Raises:
        DataError: the two do not have the same vision, connector and decoder.
    """
    given = {n: t for n, t in _read_weights(Path(directory)).items() if not n.startswith(("heads.", "views_VTD.", "states."))}
    state = policy.state_dict()
    renamed = {plain_name(n): n for n in state}  # adapters put weights one level deeper
    weights = {n if n in state else renamed.get(n, n): t for n, t in given.items()}
    own = {n: t.shape for n, t in state.items()}
    wrong = [n for n, t in weights.items() if own.get(n) != t.shape]
    if wrong:
        raise DataError(
            f"{directory}: {wrong[0]} does not fit this policy; vision, connector and decoder must be the same as there"
        )
    policy.load_state_dict(weights, strict=False)
