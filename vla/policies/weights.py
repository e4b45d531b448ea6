"""The weights of a saved policy as one file of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vla.errors import DataError
from vla.policies.folder import WEIGHTS

Weights = dict[str, torch.Tensor]


def own_weights(policy: Any) -> Weights:
    """All weights of a policy by name, without metrics; 4-bit weights are converted to float32.

    Tied weights are there once.
    """
    weights, present = Weights(), set()
    for name, tensor in _full_state(policy).items():
        if not name.startswith("metrics.") and tensor.data_ptr() not in present:
            present.add(tensor.data_ptr())
            weights[name] = tensor
    return weights


def _full_state(policy: Any) -> Weights:
    state = policy.state_dict()
    for name, module in policy.named_modules():
        if type(module._parameters.get("weight")).__name__ == "Params4bit":
            from transformers.integrations.bitsandbytes import dequantize_bnb_weight

            state = {k: v for k, v in state.items() if not k.startswith(f"{name}.weight")}
            state[f"{name}.weight"] = dequantize_bnb_weight(module.weight).float()
    return state


def write_weights(weights: Weights, directory: Path) -> None:
    """Write the file of a saved policy."""
    save_file({name: t.contiguous() for name, t in weights.items()}, directory / WEIGHTS)


def read_weights(directory: Path) -> Weights:
    """The weights in the file of a saved policy; DataError if it is missing or damaged."""
    try:
        return load_file(directory / WEIGHTS)
    except (SafetensorError, FileNotFoundError) as error:
        raise DataError(
            f"{directory / WEIGHTS}: missing or damaged ({error}); save or copy the policy again"
        ) from error


def set_weights(policy: Any, weights: Weights, directory: Path) -> None:
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
