"""Fast decoding of a loaded policy: a static key-value cache and a compiled pass."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from vla.models.decoders.static_cache import static_decoding
from vla.models.lora import merge_adapters
from vla.models.prompts import robot_prompt
from vla.policies.bound import BoundPolicy

log = logging.getLogger(__name__)


def speed_up(policy: BoundPolicy, compiled: bool = False) -> bool:
    """Decode single observations of a policy on a static cache; the actions stay the same.

    LoRA adapters are merged into their weights, which must not be trained further. Heads without
    text, and decoders for which it is not possible, stay as they are; one log line says why.
    Speculative decoding needs no preparation.

    Args:
        policy: a loaded policy, on its device.
        compiled: compile the pass with ``torch.compile``, which takes up to a few minutes. Without
            a compiler the pass runs as it is, and a log line says so.

    Returns:
        True if the static cache is used.
    """
    if not policy.uses_drafts():
        log.info("no fast decoding: the policy generates no text, or its decoder takes no drafts")
        return False
    model: Any = policy.policy
    spec, begun = policy.spec, time.monotonic()
    try:
        merge_adapters(model.decoder.lm)
    except ValueError as error:  # weights in 4 bits
        log.info("adapters are not merged: %s", error)
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
