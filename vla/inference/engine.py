"""Fast decoding of a loaded policy: a static key-value cache and a compiled pass."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from vla.errors import ConfigError
from vla.inference.merge import fold_embeddings
from vla.inference.quantize import quantize_int8
from vla.models.decoders.fast_decoding import static_decoding
from vla.models.lora import merge_adapters
from vla.models.prompts import robot_prompt
from vla.policies.bound import BoundPolicy

log = logging.getLogger(__name__)


def speed_up(policy: BoundPolicy, compiled: bool = False, quantize: str | None = None) -> bool:
    """Decode single observations of a policy on a static cache; the actions stay the same.

    LoRA adapters and separate embeddings of action tokens become part of the language model, which
    must not be trained further. Heads without text, and decoders for which it is not possible, stay
    as they are; one log line says why. Speculative decoding needs no preparation.

    Args:
        policy: a loaded policy, on its device.
        compiled: compile the pass with ``torch.compile``, which takes up to a few minutes. Without
            a compiler the pass runs as it is, and a log line says so.
        quantize: ``int8`` stores the decoder's weights so, which changes actions a little.

    Returns:
        True if the static cache is used.

    Raises:
        ConfigError: see ``quantize_int8``; or the policy has no language decoder.
    """
    decoder = getattr(getattr(policy, "policy", None), "decoder", None)
    if quantize is not None:
        if not hasattr(decoder, "lm"):
            raise ConfigError("--quantize: this policy has no language decoder of torch")
        final_weights(decoder)
        quantize_int8(decoder)
    if not policy.uses_drafts():
        log.info("no fast decoding: the policy generates no text, or its decoder takes no drafts")
        return False
    model: Any = policy.policy
    spec, begun = policy.spec, time.monotonic()
    final_weights(model.decoder)
    model.decoder.keep_output_rows()
    images = torch.zeros(
        (1, len(spec.cameras), spec.history, 3, *spec.image_size), dtype=torch.uint8
    )
    state = torch.zeros((1, spec.history, spec.state_dim)) if spec.state_dim else None
    with torch.no_grad():
        prefix = model.prefix(images.to(model.device), policy.robot, state)
    prompt = robot_prompt("pick up the object")
    model.decoder.static = static_decoding(model.decoder, prefix, prompt, compiled)
    log.info("fast decoding prepared in %.1f s", time.monotonic() - begun)
    return model.decoder.static is not None


def final_weights(decoder: Any) -> None:
    """Make adapters and separate embeddings of action tokens part of the language model."""
    try:
        merge_adapters(decoder.lm)
    except ValueError as error:  # weights in 4 bits
        log.info("adapters are not merged: %s", error)
    fold_embeddings(decoder)
