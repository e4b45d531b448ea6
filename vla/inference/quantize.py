"""Language decoders with weights in 8 bits, by torchao."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from vla.errors import ConfigError


def quantize_int8(decoder: Any) -> int:
    """Store the weights of a decoder's linear layers as int8, in place; the number of layers.

    Each output of a layer has one scale. The embeddings and the output layer stay as they are.

    Args:
        decoder: any ``Decoder``, without adapters.

    Raises:
        ConfigError: torchao is not installed, or the decoder has no linear layers with plain
            weights.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ConfigError("--quantize int8 needs torchao: pip install 'vla[quantize]'") from error
    lm = decoder.lm.requires_grad_(False)
    _to_linear(lm)
    output = lm.get_output_embeddings()
    chosen = {
        id(module) for module in lm.modules() if type(module) is nn.Linear and module is not output
    }
    if not chosen:
        raise ConfigError(
            f"--quantize int8: {lm.config.model_type} has no linear layers in full precision"
        )
    config = Int8WeightOnlyConfig(set_inductor_config=False)
    quantize_(lm, config, filter_fn=lambda module, name: id(module) in chosen)
    return len(chosen)


def _to_linear(model: nn.Module) -> None:
    """Replace GPT-2's ``Conv1D``, a linear layer with transposed weights."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, Conv1D):
                linear = nn.Linear(module.nx, module.nf, device=module.weight.device)
                linear.weight = nn.Parameter(module.weight.T.contiguous(), False)
                linear.bias = nn.Parameter(module.bias.detach(), False)
                setattr(parent, name, linear)
