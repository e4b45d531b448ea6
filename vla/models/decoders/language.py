"""The base of all decoders: a Hugging Face language model with its tokenizer."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Self

import torch
from torch import nn

from vla.models.decoders.architecture import architecture_to_dict
from vla.models.decoders.loading import Kind, make_language_model
from vla.models.decoders.output_layer import HiddenToLogits
from vla.models.decoders.tokenizer import INTEGERS
from vla.models.decoders.trainable_embeddings import TrainableEmbeddings
from vla.models.lora import LoraConfig, apply_finetuning

# Standard deviation of the curve's turns over 0..255: numbers ten apart are nearly uncorrelated.
_CURVE_TURNS = 4.0


@torch.no_grad()
def order_integers(lm: Any, tokenizer: Any) -> None:
    """Initialise the embeddings of 0..255 on a smooth curve.

    Near numbers then have similar embeddings, as in pretrained language models.
    """
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
    """Grow the embeddings to the tokenizer's length.

    New rows are the mean of the old rows plus a little noise.
    """
    old = lm.get_input_embeddings().num_embeddings
    if len(tokenizer) <= old:
        return
    lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    modules = {id(m): m for m in (lm.get_input_embeddings(), lm.get_output_embeddings())}
    for module in modules.values():
        if module is not None and not module.weight.is_meta:
            rows = module.weight[:old]
            noise = torch.randn(
                len(tokenizer) - old, rows.shape[1], generator=torch.Generator().manual_seed(0)
            )
            module.weight[old:] = rows.mean(0) + 0.1 * rows.std() * noise.to(rows)


@functools.cache
def _parameters(kind: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward).parameters)


def has_argument(model: nn.Module, name: str) -> bool:
    """True if the forward pass has this argument; models with ALiBi have no position ids."""
    # Annotated for mypy: __hash__ of modules makes their class appear unhashable.
    kind: Any = type(model)
    return name in _parameters(kind)


def cache_argument(model: nn.Module) -> str:
    """Name of the cache in arguments and outputs; it depends on family and version."""
    names = ("cache", "past_key_values", "cache_params", "state")
    return next((n for n in names if has_argument(model, n)), "past_key_values")


def cache_arguments(model: nn.Module, cache: Any) -> dict[str, Any]:
    """Arguments that give ``model`` a key-value cache (None: no cache)."""
    return {cache_argument(model): cache, "use_cache": cache is not None}


def attention_mask(lm: Any, mask: torch.Tensor) -> torch.Tensor:
    """A bool mask (B, 1, L, past + L) in the form that the model's attention expects.

    Eager attention (Gemma 2) adds the mask to the scores.
    """
    if lm.config.get_text_config()._attn_implementation != "eager":
        return mask
    low = torch.finfo(lm.dtype).min
    return torch.zeros(mask.shape, dtype=lm.dtype, device=mask.device).masked_fill(~mask, low)


class LanguageModel(nn.Module):
    """A Hugging Face language model with its tokenizer; subclasses implement ``Decoder``.

    Args:
        kind: which Auto class builds the model.
        others: see the options of ``CausalDecoder``.

    Raises:
        ValueError: ``quantize`` without ``model`` and ``lora``.
    """

    is_vlm = False  # True for decoders with their own vision encoder

    def __init__(
        self,
        kind: Kind,
        model: str | None,
        config: dict[str, Any] | None,
        tokenizer: Any,
        pretrained: bool,
        frozen: bool,
        lora: LoraConfig | None,
        checkpointing: bool,
        quantize: str | None,
        ordinal_integers: bool = False,
    ) -> None:
        super().__init__()
        if quantize and (lora is None or model is None):
            raise ValueError(
                "decoder.quantize=4bit: 4-bit weights cannot learn; "
                "set decoder.model and decoder.lora, too (QLoRA)"
            )
        self.pretrained_from = model
        lm = make_language_model(kind, model, config, tokenizer, pretrained, quantize)
        self.set_model(lm, tokenizer, frozen, lora)
        self.prove()
        if model is None and ordinal_integers:
            order_integers(self.lm, tokenizer)
        if checkpointing:
            self.lm.activation_checkpointing_enable()
        self.fit_vocabulary()

    def set_model(self, lm: Any, tokenizer: Any, frozen: bool, lora: LoraConfig | None) -> None:
        """Use a model that exists."""
        self.lm, self.tokenizer, self.frozen, self.lora = lm, tokenizer, frozen, lora
        self._logits = HiddenToLogits(lm)
        self.trainable_embeddings: TrainableEmbeddings | None = None

    @classmethod
    def of_model(cls, lm: Any, tokenizer: Any) -> Self:
        """A decoder around a model that exists, without a proof."""
        decoder = cls.__new__(cls)
        nn.Module.__init__(decoder)
        decoder.set_model(lm, tokenizer, False, None)
        return decoder

    def prove(self) -> None:
        """Check the model's family at a tiny size, where a subclass has a start-up proof.

        Raises:
            ConfigError: the family fails a check.
        """

    def fit_vocabulary(self) -> None:
        """Grow the embeddings to the tokenizer's length."""
        fit_embedding(self.lm, self.tokenizer)

    def resolved_config(self) -> dict[str, Any]:
        """Options that replace those of a pretrained model in a saved policy.

        With the architecture in the configuration, loading needs neither folder nor hub. The saved
        weights are not quantised.
        """
        if not self.pretrained_from:
            return {}
        return {"config": architecture_to_dict(self.lm), "quantize": None}

    def apply_finetuning(self, trainable_token_ids: list[int]) -> None:
        """Freeze or adapt the model; call it once all parts of the policy exist.

        The embeddings of ``trainable_token_ids`` (action tokens) are trained in any case.
        """
        if trainable_token_ids and (self.frozen or self.lora is not None):
            self.trainable_embeddings = TrainableEmbeddings(self.lm, trainable_token_ids)
        apply_finetuning(self.lm, self.frozen, self.lora)

    @property
    def width(self) -> int:
        """D."""
        return self.lm.get_input_embeddings().embedding_dim

    @property
    def vocabulary(self) -> int:
        """Number of logits, at least the length of the tokenizer."""
        return self.lm.get_output_embeddings().weight.shape[0]

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (B, S) to embeddings (B, S, D)."""
        embeds = self.lm.get_input_embeddings()(ids)
        trainable = self.trainable_embeddings
        return embeds if trainable is None else trainable.embed(ids, embeds)

    def keep_output_rows(self) -> None:
        """Keep the output rows of small sets of ids: faster, for weights that do not change."""
        self._logits.keeps_rows = True

    def logits(self, hidden: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """See ``Decoder.logits``."""
        return self._logits(self.lm, hidden, ids, self.trainable_embeddings)
