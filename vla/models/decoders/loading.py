"""Construction of Hugging Face models from configurations or pretrained weights."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
)

from vla.errors import ConfigError
from vla.models.decoders.architecture import architecture_from_dict, check_agreement
from vla.models.decoders.proof import one_line
from vla.models.pretrained import load_pretrained, locate

Kind = Literal["causal", "seq2seq", "vlm", "encoder"]
_AUTO: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "vlm": AutoModelForImageTextToText,
    "encoder": AutoModel,
}


def make_language_model(
    kind: Kind,
    model: str | None,
    config: dict[str, Any] | None,
    tokenizer: Any,
    pretrained: bool,
    quantize: str | None = None,
) -> Any:
    """A model in training mode: the weights of ``model`` if ``pretrained``, else random weights.

    The architecture of random weights is ``config``, or that of ``model``.

    Raises:
        ValueError: neither is given, or the tokenizer has no end-of-text token.
    """
    auto = _AUTO[kind]
    if kind != "encoder" and tokenizer.eos_token_id is None:
        raise ValueError(
            f"decoder.model={model!r}: its tokenizer has no end-of-text token; "
            "choose a generative language model"
        )
    if model is not None and pretrained:
        source = locate(model)
        dtype = quantization_options() if quantize else {"dtype": torch.float32}
        options = source.options | dtype | {"trust_remote_code": False}
        found = load_pretrained(model, lambda: auto.from_pretrained(source.path, **options))
        if config:
            check_agreement(config, found.config, model, _slot(kind))
        return found.train()  # transformers loads in evaluation mode, that is without dropout
    if config is not None:
        fields: dict[str, Any] = {}
        if model is None:
            fields = {
                "vocab_size": len(tokenizer),
                "pad_token_id": tokenizer.pad_token_id,
                "bos_token_id": tokenizer.eos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            }
        strict = model is None  # a saved policy of a pretrained model may have other fields
        architecture = architecture_from_dict(config, _slot(kind), strict, **fields)
        try:
            return auto.from_config(architecture, trust_remote_code=False)
        except (ValueError, AssertionError) as error:  # sizes that do not fit each other
            raise ConfigError(f"{_slot(kind)}.config: {one_line(error)}") from error
    if model is None:
        raise ValueError(
            "decoder: give model (pretrained), or config (an architecture with random weights)"
        )
    return auto.from_config(_read_config(model), trust_remote_code=False)


def _read_config(model: str) -> Any:
    source = locate(model)
    return load_pretrained(
        model,
        lambda: AutoConfig.from_pretrained(source.path, trust_remote_code=False, **source.options),
    )


def read_architecture(model: str) -> dict[str, Any]:
    """The architecture of a model in a folder or on the hub, without its weights.

    Raises:
        PretrainedError: the model is missing.
    """
    found: dict[str, Any] = _read_config(model).to_dict()
    return found


def _slot(kind: Kind) -> str:
    """The slot of a model, which begins the paths in error messages."""
    return "text" if kind == "encoder" else "decoder"


def quantization_options() -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for 4-bit weights (QLoRA, arXiv 2305.14314).

    The format is NF4 with double quantisation.

    Raises:
        ValueError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            "decoder.quantize=4bit: needs bitsandbytes; install it: pip install 'vla[qlora]'"
        )
    cuda = torch.cuda.is_available()
    compute = torch.bfloat16 if cuda else torch.float32
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {
        "quantization_config": config,
        "device_map": {"": torch.cuda.current_device() if cuda else "cpu"},
        "dtype": compute,
    }
