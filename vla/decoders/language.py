"""Language models from a configuration or from weights, and what all decoders do with them."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    BitsAndBytesConfig,
)

from vla.decoders.rows import LearnedRows
from vla.decoders.tokenizer import INTEGERS
from vla.pretrained import explain, locate
from vla.tuning import LoraConfig, tune

Kind = Literal["causal", "seq2seq", "vlm", "encoder"]
_AUTO: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "vlm": AutoModelForImageTextToText,
    "encoder": AutoModel,
}
_NOT_SHAPE = ("architectures", "transformers_version", "dtype", "_name_or_path", "quantization_config")
_CURVE_TURNS = 4.0  # standard deviation of the curve's turns over 0..255: numbers ten apart are nearly uncorrelated


def architecture(config: dict[str, Any], **fields: Any) -> Any:
    """A Hugging Face configuration object from ``model_type`` and its fields.

    Raises:
        ValueError: no model_type, or one that transformers does not know.
    """
    given = dict(config)
    kind = given.pop("model_type", None)
    if not kind:
        raise ValueError("decoder.config: model_type is required (gpt2, llama, qwen3, gemma3_text, t5, ...)")
    try:
        return AutoConfig.for_model(kind, **(fields | given))
    except ValueError as error:
        raise ValueError(f"decoder.config.model_type={kind!r}: transformers knows no such architecture") from error


def make_language_model(
    kind: Kind, model: str | None, config: dict[str, Any] | None, tokenizer: Any, pretrained: bool, quantize: str | None = None
) -> Any:
    """Weights from ``model`` (where ``pretrained``), else random ones from ``config``, else random ones from the model's own configuration.

    Raises:
        ValueError: neither is given, or the tokenizer cannot end a text.
    """
    auto = _AUTO[kind]
    if kind != "encoder" and tokenizer.eos_token_id is None:
        raise ValueError(f"decoder.model={model!r}: its tokenizer has no end-of-text token; choose a model that writes text")
    if model is not None and pretrained:
        where = locate(model)
        options = where.options | (quantized() if quantize else {"dtype": torch.float32})
        with explain(model):
            return auto.from_pretrained(where.path, **options)
    if config is not None:
        ids = {
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.eos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        return auto.from_config(architecture(config, **({"vocab_size": len(tokenizer), **ids} if model is None else {})))
    if model is None:
        raise ValueError("decoder: give model (pretrained), or config (an architecture with random weights)")
    where = locate(model)
    with explain(model):
        found = AutoConfig.from_pretrained(where.path, **where.options)
    return auto.from_config(found)


def quantized() -> dict[str, Any]:
    """How ``from_pretrained`` is asked for 4-bit weights (QLoRA, arXiv 2305.14314: NF4, doubly quantised).

    Raises:
        ValueError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("decoder.quantize=4bit: needs bitsandbytes; install it: pip install 'vla[qlora]'")
    cuda = torch.cuda.is_available()
    compute = torch.bfloat16 if cuda else torch.float32
    asked = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    return {"quantization_config": asked, "device_map": {"": torch.cuda.current_device() if cuda else "cpu"}, "dtype": compute}


def plain_architecture(lm: Any) -> dict[str, Any]:
    """A model's configuration as plain data, the inverse of ``architecture``."""
    return {k: v for k, v in json.loads(lm.config.to_json_string(use_diff=True)).items() if k not in _NOT_SHAPE}


@torch.no_grad()
def order_integers(lm: Any, tokenizer: Any) -> None:
    """Start the embeddings of 0..255 on a smooth curve: near numbers are near, as in any pretrained language model."""
    weight = lm.get_input_embeddings().weight
    ids = [tokenizer.encode(f" {n}", add_special_tokens=False) for n in range(INTEGERS)]
    if weight.is_meta or any(len(i) != 1 for i in ids):
        return
    generator = torch.Generator().manual_seed(0)
    frequency = torch.randn(weight.shape[1], generator=generator) * 2 * torch.pi * _CURVE_TURNS
    phase = torch.rand(weight.shape[1], generator=generator) * 2 * torch.pi
    curve = (torch.linspace(0, 1, INTEGERS)[:, None] * frequency + phase).cos() * 2**0.5
    weight[torch.tensor(ids).flatten()] = curve * weight.std()


@torch.no_grad()
def fit_embedding(lm: Any, tokenizer: Any) -> None:
    """Grow the embedding to the tokenizer's length; new rows start at the mean of the old, apart by a little noise."""
    old = lm.get_input_embeddings().num_embeddings
    if len(tokenizer) <= old:
        return
    lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for module in {id(m): m for m in (lm.get_input_embeddings(), lm.get_output_embeddings())}.values():
        if module is not None and not module.weight.is_meta:
            rows = module.weight[:old]
            noise = torch.randn(len(tokenizer) - old, rows.shape[1], generator=torch.Generator().manual_seed(0))
            module.weight[old:] = rows.mean(0) + 0.1 * rows.std() * noise.to(rows)


@functools.cache
def _cache_argument(kind: Any) -> str:
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"


def with_cache(model: nn.Module, cache: Any) -> dict[str, Any]:
    """Arguments that give ``model`` its key-value cache (None: none), whose name transformers 5.24 changed."""
    kind: Any = type(model)  # mypy takes a module's class for unhashable, as its objects' __hash__ hides the class's own
    return {_cache_argument(kind): cache, "use_cache": cache is not None}


def attention_mask(lm: Any, mask: torch.Tensor) -> torch.Tensor:
    """A bool mask (B, 1, L, past + L) as the model's attention takes it: Gemma 2 has no fused attention and adds its mask to the scores."""
    if lm.config.get_text_config()._attn_implementation != "eager":
        return mask
    low = torch.finfo(lm.dtype).min
    return torch.zeros(mask.shape, dtype=lm.dtype, device=mask.device).masked_fill(~mask, low)


class HiddenToLogits:
    """The output layer, as the model itself uses it: whole or for some rows, with the family's scaling and capping."""

    def __init__(self, lm: Any) -> None:
        text = lm.config.get_text_config()
        self.cap = getattr(text, "final_logit_softcapping", None)  # Gemma 2 and 3
        self.scale = float(getattr(text, "logit_scale", 1.0) or 1.0) / float(
            getattr(text, "logits_scaling", 1.0) or 1.0
        )  # Cohere; Granite
        if getattr(text, "scale_decoder_outputs", text.model_type == "umt5"):  # T5 with tied embeddings
            self.scale *= text.d_model**-0.5

    def __call__(
        self, lm: Any, hidden: torch.Tensor, ids: torch.Tensor | None = None, rows: LearnedRows | None = None
    ) -> torch.Tensor:
        """(..., D) to (..., vocabulary) or (..., len(ids))."""
        head = lm.get_output_embeddings()
        if ids is None:
            logits = head(hidden)
        else:
            logits = nn.functional.linear(hidden, head.weight[ids], None if head.bias is None else head.bias[ids])
        if rows is not None:
            logits = rows.logits(hidden, logits, ids, head.bias)
        logits = logits * self.scale if self.scale != 1.0 else logits
        return (logits / self.cap).tanh() * self.cap if self.cap else logits


class LanguageModel(nn.Module):
    """A Hugging Face language model with its tokenizer: what all decoders share.

    Args:
        ordinal_integers: start random embeddings of the integers on a smooth curve. Others: see ``CausalDecoder``.

    Raises:
        ValueError: 4-bit weights that are asked to learn.
    """

    def __init__(
        self, kind: Kind, model: str | None, config: dict[str, Any] | None, tokenizer: Any, pretrained: bool, frozen: bool, lora: LoraConfig | None,
        checkpointing: bool, quantize: str | None, ordinal_integers: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if quantize and (lora is None or model is None):
            raise ValueError("decoder.quantize=4bit: 4-bit weights cannot learn; give model and lora beside it (QLoRA)")
        self.pretrained_from, self.tokenizer, self.frozen, self.lora = model, tokenizer, frozen, lora
        self.lm = make_language_model(kind, model, config, tokenizer, pretrained, quantize)
        if model is None and ordinal_integers:
            order_integers(self.lm, tokenizer)
        if checkpointing:
            self.lm.activation_checkpointing_enable()
        self.fit_vocabulary()
        self._logits = HiddenToLogits(self.lm)
        self.rows: LearnedRows | None = None
        self.crossing: dict[str, torch.Tensor] | None = None  # what cross-attention layers look at during one forward

    def fit_vocabulary(self) -> None:
        """Grow the embedding to the tokenizer's length (new rows start at the mean)."""
        fit_embedding(self.lm, self.tokenizer)

    def portable(self) -> dict[str, Any]:
        """The architecture of pretrained weights, so that loading needs neither folder nor hub."""
        return {"config": plain_architecture(self.lm), "quantize": None} if self.pretrained_from else {}

    def settle(self, new_rows: list[int]) -> None:
        """Freeze or adapt, once all parts of the policy are there; ``new_rows``: ids of action tokens whose embeddings must learn in any case."""
        if new_rows and (self.frozen or self.lora is not None):
            self.rows = LearnedRows(self.lm, new_rows)
        tune(self.lm, self.frozen, self.lora)

    @property
    def width(self) -> int:
        """D."""
        return self.lm.get_input_embeddings().embedding_dim

    @property
    def vocabulary(self) -> int:
        """V, which may be more than the tokenizer has."""
        return self.lm.get_output_embeddings().weight.shape[0]

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (B, S) to embeddings (B, S, D)."""
        embeds = self.lm.get_input_embeddings()(ids)
        return embeds if self.rows is None else self.rows.embed(ids, embeds)

    def logits(self, hidden: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states (..., D) to logits over the vocabulary, or over the rows ``ids`` only."""
        return self._logits(self.lm, hidden, ids, self.rows)

    @contextmanager
    def looking(self, memory_BMD: torch.Tensor | None, sees_BL: torch.Tensor) -> Iterator[None]:
        """During one forward, cross-attention layers look at ``memory_BMD``, from the columns where ``sees_BL``."""
        self.crossing = None if memory_BMD is None else {"memory_BMD": memory_BMD, "sees_BL": sees_BL}
        try:
            yield
        finally:
            self.crossing = None
