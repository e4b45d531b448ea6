"""The size of a policy and the cost of its training step."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from torch import nn

from vla.models.lora import count_parameters
from vla.training.config import RunConfig
from vla.training.planning.shapes import ShapesOnly
from vla.training.planning.specimen import make_specimen
from vla.training.planning.step import Step, measure_step
from vla.training.sharding import large_layers

_BITS_4 = 0.516  # bytes of a weight in NF4 with double quantisation


@dataclass(frozen=True)
class Survey:
    """What a plan needs to know about a policy.

    weights: bytes of all parameters.
    layers: bytes of the parameters, and of those that are trained, of each layer that FSDP gathers
        for its own pass.
    assumed: data sets that are not packed.
    """

    parameters: int
    trainable: int
    weights: float
    layers: tuple[tuple[int, int], ...]
    step: Step
    assumed: tuple[str, ...]


def make_survey(config: RunConfig) -> Survey:
    """Build the policy of a run from shapes and compute a training step; takes seconds.

    Raises:
        ConfigError, DataError: the policy cannot be built, as in training.
    """
    mode = ShapesOnly()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        specimen = make_specimen(config, mode)
        step = measure_step(specimen, mode, config.trainer.precision)
    policy, quantised = specimen.policy, (config.policy.get("decoder") or {}).get("quantize")
    parameters, trainable = count_parameters(policy)
    layers = large_layers(policy) if len(specimen.parts) == 1 else []
    return Survey(
        parameters,
        trainable,
        sum(_bytes(policy, bool(quantised)).values()),
        tuple(_size(layer) for layer in layers),
        step,
        specimen.assumed,
    )


def _bytes(policy: nn.Module, quantised: bool) -> dict[int, float]:
    """Bytes of each parameter."""
    found = {id(p): float(p.numel() * p.element_size()) for p in policy.parameters()}
    if quantised:
        lm: Any = policy.decoder.lm  # type: ignore[union-attr]
        layers = (m for m in lm.modules() if isinstance(m, nn.Linear))
        for weight in (m.weight for m in layers if m is not lm.get_output_embeddings()):
            if not weight.requires_grad:
                found[id(weight)] = weight.numel() * _BITS_4
    return found


def _size(module: nn.Module) -> tuple[int, int]:
    """Bytes of a module's parameters, and of those that are trained."""
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in module.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)
