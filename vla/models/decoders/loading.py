"""Construction of Hugging Face models from configurations or pretrained weights."""

from __future__ import annotations

import difflib
import importlib.util
import json
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

from vla.models.pretrained import load_pretrained, locate

Kind = Literal["causal", "seq2seq", "vlm", "encoder"]
_AUTO: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "vlm": AutoModelForImageTextToText,
    "encoder": AutoModel,
}
# Fields of a Hugging Face configuration that do not describe the architecture.
_OTHER_FIELDS = (
    "architectures",
    "transformers_version",
    "dtype",
    "_name_or_path",
    "quantization_config",
)


def architecture_from_dict(config: dict[str, Any], **fields: Any) -> Any:
    """A Hugging Face configuration object from ``model_type`` and its fields.

    Raises:
        ValueError: no model_type, one that transformers does not know, or a misspelt field.
    """
    given = dict(config)
    kind = given.pop("model_type", None)
    if not kind:
        raise ValueError(
            "decoder.config: model_type is required (gpt2, llama, qwen3, gemma3_text, t5, ...)"
        )
    try:
        default = AutoConfig.for_model(kind)
    except ValueError as error:
        raise ValueError(
            f"decoder.config.model_type={kind!r}: transformers knows no such architecture"
        ) from error
    for name in given if fields else ():  # without fields the configuration is a saved one
        close = difflib.get_close_matches(name, default.to_dict(), n=1, cutoff=0.75)
        if close and not hasattr(default, name):  # transformers accepts and ignores any name
            raise ValueError(
                f"decoder.config.{name}: {kind} has no such field; did you mean {close[0]!r}?"
            )
    return AutoConfig.for_model(kind, **(fields | given))


def architecture_to_dict(lm: Any) -> dict[str, Any]:
    """A model's configuration as plain data, the inverse of ``architecture_from_dict``."""
    config = json.loads(lm.config.to_json_string(use_diff=True))
    return {k: v for k, v in config.items() if k not in _OTHER_FIELDS}


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
        options = source.options | dtype
        found = load_pretrained(model, lambda: auto.from_pretrained(source.path, **options))
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
        return auto.from_config(architecture_from_dict(config, **fields))
    if model is None:
        raise ValueError(
            "decoder: give model (pretrained), or config (an architecture with random weights)"
        )
    source = locate(model)
    found = load_pretrained(
        model, lambda: AutoConfig.from_pretrained(source.path, **source.options)
    )
    return auto.from_config(found)


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
