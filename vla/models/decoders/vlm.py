"""A Hugging Face vision-language model as the decoder, with its own vision encoder (RT-2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from transformers import AutoProcessor

from vla.config import register
from vla.models.decoders.proof import Verdict
from vla.models.decoders.proof_vlm import prove_vlm, unused_parameters
from vla.models.decoders.vlm_texts import VLMTexts
from vla.models.lora import LoraConfig
from vla.models.pretrained import load_pretrained, locate


@register("decoder", "vlm")
class VLMDecoder(VLMTexts):
    """``AutoModelForImageTextToText`` with its own processor, without vision slot or connector.

    The model's own forward pass places the images and creates masks and positions. Every text has
    its own sequence: prompt with images, the robot's state if the prefix has one, target items.
    An encoder-decoder model (Florence-2) reads the prompt with its encoder; its decoder writes the
    items. Texts about one image cost as much as separate rows: set
    ``data.window.max_texts_per_image`` low.

    Raises:
        ConfigError: the processor cannot place images, or a check of the start-up proof fails.
        ValueError: the template lacks a field, or ``quantize`` is set without ``lora``.
    """

    def __init__(
        self,
        model: str,  # local folder or hub name of the weights and the processor
        # Architecture: model_type and its fields; used where weights are not loaded (vla zoo).
        config: dict[str, Any] | None = None,
        # Order of images and prompt; {images} becomes the family's markup of all images.
        template: str = "{images}{prompt}",
        frozen: bool = False,  # do not train the model
        lora: LoraConfig | None = None,  # train low-rank adapters instead of the weights
        checkpointing: bool = False,  # recompute activations in training: less memory, slower
        # 4bit: keep the model's weights in 4 bits (QLoRA; needs lora). Saved policies contain them
        # in full precision.
        quantize: Literal["4bit"] | None = None,
        *,
        tokenizer: Any = None,
        folder: Path | None = None,  # of a saved policy, which contains the processor
        pretrained: bool = True,
    ) -> None:
        if "{images}" not in template or "{prompt}" not in template:
            raise ValueError(
                f"decoder.template={template!r}: must contain {{images}} and {{prompt}}"
            )
        super().__init__(
            "vlm", model, config, tokenizer, pretrained, frozen, lora, checkpointing, quantize
        )
        self.template = template
        self.verdict: Verdict | None = None
        if folder is not None or pretrained:
            place = str(folder) if folder else locate(model).path
            processor = load_pretrained(
                place, lambda: AutoProcessor.from_pretrained(place, trust_remote_code=False)
            )
            processor.tokenizer = tokenizer
            self.use_processor(processor)
            self.verdict = self.accept(prove_vlm(self.lm.config, processor))

    def apply_finetuning(self, trainable_token_ids: list[int]) -> None:
        """See ``LanguageModel.apply_finetuning``; weights without influence are frozen."""
        super().apply_finetuning(trainable_token_ids)
        if self.verdict is not None:
            for parameter in unused_parameters(self.verdict, self.lm):
                parameter.requires_grad_(False)
