"""Encoder-decoder language models (T5, UL2: the family of PaLI's decoder)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from vla.config import register
from vla.models.decoders.proof_seq2seq import prove_seq2seq
from vla.models.decoders.seq2seq_texts import Seq2SeqTexts
from vla.models.lora import LoraConfig


@register("decoder", "seq2seq")
class Seq2SeqDecoder(Seq2SeqTexts):
    """``AutoModelForSeq2SeqLM``: one encoder sequence per text (PaLI, arXiv 2209.06794).

    The encoder reads image tokens and prompt; the decoder reads the target items. Relative
    positions (T5) follow the order of the tokens.

    Raises:
        ConfigError: a check of the start-up proof fails.
        ValueError: neither model nor config is given, or ``quantize`` is set without ``lora``.
    """

    # Options of a small instance, for vla.testing.
    example: ClassVar[dict[str, Any]] = {
        "vocab_size": 800,
        "config": {
            "model_type": "t5",
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 64,
            "num_layers": 1,
            "num_heads": 2,
        },
    }

    def __init__(
        self,
        # Folder, package:NAME/PATH or hub name of pretrained weights and tokenizer; null: random
        # weights.
        model: str | None = None,
        # Architecture: model_type and the fields of its configuration class. Required if model is
        # null; otherwise used where weights are not loaded (tests, vla zoo).
        config: dict[str, Any] | None = None,
        vocab_size: int = 2048,  # of the BPE tokenizer trained on the data if model is null
        ordinal_integers: bool = True,  # initialise random embeddings of integers on a curve
        frozen: bool = False,  # do not train the language model
        lora: LoraConfig | None = None,  # train low-rank adapters instead of the weights
        checkpointing: bool = False,  # recompute activations in training: less memory, slower
        # 4bit: keep the model's weights in 4 bits (QLoRA; needs model and lora). Saved policies
        # contain them in full precision.
        quantize: Literal["4bit"] | None = None,
        *,
        tokenizer: Any = None,
        pretrained: bool = True,
    ) -> None:
        if config is not None:
            config = _first_token(config, tokenizer) | config
        super().__init__(
            "seq2seq",
            model,
            config,
            tokenizer,
            pretrained,
            frozen,
            lora,
            checkpointing,
            quantize,
            ordinal_integers,
        )

    def prove(self) -> None:
        """See ``LanguageModel.prove``."""
        self.accept(prove_seq2seq(self.lm.config))


def _first_token(config: dict[str, Any], tokenizer: Any) -> dict[str, int]:
    """The first token of the decoder stack of random weights, as a field of the configuration.

    It is not padding where the family's is not: positions of M2M-100 do not count padding.
    """
    kind = str(config.get("model_type"))
    default = CONFIG_MAPPING[kind]() if kind in CONFIG_MAPPING else None
    start = getattr(default, "decoder_start_token_id", None)
    if start is None:
        return {}
    padding = start == getattr(default, "pad_token_id", None)
    return {"decoder_start_token_id": tokenizer.pad_token_id if padding else tokenizer.eos_token_id}
