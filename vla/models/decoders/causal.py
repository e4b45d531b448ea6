"""Any Hugging Face causal language model as the decoder."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from vla.config import register
from vla.models.decoders.causal_texts import CausalTexts
from vla.models.decoders.proof_causal import prove_causal
from vla.models.lora import LoraConfig


@register("decoder", "causal")
class CausalDecoder(CausalTexts):
    """``AutoModelForCausalLM`` on embeddings; several texts share their image in one sequence.

    The start-up proof finds out whether the family can do that. Families that cannot, such as
    state-space models, get one sequence per text; their recurrent layers read queries in order.

    Raises:
        ConfigError: the family fails the start-up proof.
        ValueError: neither model nor config is given, or ``quantize`` is set without ``lora``.
    """

    # Options of a small instance, for vla.testing.
    example: ClassVar[dict[str, Any]] = {
        "vocab_size": 800,
        "config": {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2},
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
        # shared: all image tokens have one position (the vision encoder adds 2-D positions);
        # each: consecutive positions, as pretrained language models expect.
        image_positions: Literal["shared", "each"] = "shared",
        # full: image tokens attend to each other; causal: only to earlier ones.
        image_attention: Literal["full", "causal"] = "full",
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
        super().__init__(
            "causal",
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
        self.image_positions, self.image_attention = image_positions, image_attention
        # Pretrained models expect this token first.
        self.bos = tokenizer.bos_token_id if model is not None else None

    def prove(self) -> None:
        """See ``LanguageModel.prove``."""
        self.accept(prove_causal(self.lm.config))
