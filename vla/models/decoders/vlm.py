"""A Hugging Face vision-language model as the decoder, with its own vision encoder (RT-2)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoProcessor, DynamicCache

from vla.config import register
from vla.models.decoders.base import DecodingState, Prefix, hidden_state_index, pad_targets
from vla.models.decoders.language import LanguageModel, attention_mask, cache_arguments
from vla.models.decoders.vlm_inputs import VLMInputs, append_items
from vla.models.lora import LoraConfig
from vla.models.pretrained import load_pretrained, locate

# Supported model types: the tests show that their logits equal those of their own forward pass.
# The value is True if image and prompt attend to each other in both directions.
FAMILIES = {
    "paligemma": True,
    "llava": False,
    "idefics3": False,
    "smolvlm": False,
    "qwen2_5_vl": False,
    "qwen3_vl": False,
}
# Outputs of a processor that belong to the text; the others are pixels.
_TEXT_KEYS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels")


def _unused_parameters(lm: Any) -> list[nn.Parameter]:
    """Weights that no output depends on: LLaVA does not use its last vision layers."""
    if lm.config.model_type != "llava" or not isinstance(lm.config.vision_feature_layer, int):
        return []
    modules = list(lm.model.vision_tower.named_modules())
    layers = next(m for n, m in modules if n.endswith("layers") and isinstance(m, nn.ModuleList))
    unused = list(layers[lm.config.vision_feature_layer % (len(layers) + 1) :])
    unused += [m for n, m in modules if n.endswith("post_layernorm")]
    return [p for module in unused for p in module.parameters()]


@register("decoder", "vlm")
class VLMDecoder(LanguageModel):
    """``AutoModelForImageTextToText`` with its own processor, without vision slot or connector.

    Every text has its own sequence, because rotary positions of some families depend on all of it.
    Texts about one image cost as much as separate rows: set ``data.window.max_texts_per_image``
    low.

    Raises:
        ValueError: the model's family is not in ``FAMILIES``, or the template lacks a field.
    """

    is_vlm = True

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
        self.template, kind = template, self.lm.config.model_type
        if kind not in FAMILIES:
            raise ValueError(
                f"decoder.model={model!r} is a {kind!r}; "
                f"supported families are {', '.join(FAMILIES)}"
            )
        self.bidirectional_prompt = FAMILIES[kind]
        self.processor: Any = None
        if folder is not None or pretrained:
            place = str(folder) if folder else locate(model).path
            self.processor = load_pretrained(place, lambda: AutoProcessor.from_pretrained(place))
            self.processor.tokenizer = tokenizer

    def apply_finetuning(self, trainable_token_ids: list[int]) -> None:
        """See ``LanguageModel.apply_finetuning``; weights without influence are frozen."""
        super().apply_finetuning(trainable_token_ids)
        for parameter in _unused_parameters(self.lm):
            parameter.requires_grad_(False)

    def image_prefix(self, images_BVTCHW: torch.Tensor) -> Prefix:
        """A prefix with the uint8 images, which are encoded together with the text."""
        empty = torch.zeros((len(images_BVTCHW), 0, self.width), device=images_BVTCHW.device)
        return Prefix(empty, images_BVCHW=images_BVTCHW.flatten(1, 2))

    def process(
        self, prefix: Prefix, image_index_K: torch.Tensor, prompts: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """The processor's output for images and prompts, padded on the right."""
        assert prefix.images_BVCHW is not None
        views = prefix.images_BVCHW.shape[1]
        # Qwen needs these marks; other families have none, or their processor adds them.
        marks = ("<|vision_start|>", "<|vision_end|>")
        start, end = marks if marks[0] in self.tokenizer.get_vocab() else ("", "")
        markup = (start + self.processor.image_token + end) * views
        texts = [self.template.format(images=markup, prompt=p) for p in prompts]
        images = [list(prefix.images_BVCHW[row].cpu()) for row in image_index_K.tolist()]
        with warnings.catch_warnings():  # PaliGemma's processor converts tensors to numpy arrays
            warnings.simplefilter("ignore", DeprecationWarning)
            out = self.processor(
                images=images, text=texts, return_tensors="pt", padding=True, padding_side="right"
            )
        return {
            k: v.to(image_index_K.device) for k, v in out.items() if isinstance(v, torch.Tensor)
        }

    def _positions(self, inputs: VLMInputs, pixels: dict[str, Any]) -> torch.Tensor:
        """Positions (K, L), or (3, K, L) for rotary positions in time, height and width."""
        ids = inputs.ids_KL
        if not hasattr(self.lm.model, "get_rope_index"):
            return torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
        return self.lm.model.get_rope_index(
            input_ids=ids,
            mm_token_type_ids=inputs.kinds_KL,
            image_grid_thw=pixels.get("image_grid_thw"),
            attention_mask=inputs.valid_KL.long(),
        )[0]

    def _forward(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        target_ids: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None,
        parallel: bool = False,
        cache: Any = None,
    ) -> tuple[torch.Tensor, VLMInputs, torch.Tensor]:
        """Hidden states (K, L, D), the inputs, and their positions."""
        processed = self.process(prefix, image_index_K, prompts)
        pixels = {k: v for k, v in processed.items() if k not in _TEXT_KEYS}
        pad = self.tokenizer.pad_token_id
        items = pad_targets(target_ids, queries_KQD, pad)
        inputs = append_items(processed, items, target_ids, pad)
        image_token = self.lm.config.image_token_id
        mask = inputs.mask(self.bidirectional_prompt, parallel, attend_image_K, image_token)
        positions = self._positions(inputs, pixels)
        embeds = self.embed(inputs.ids_KL)
        if queries_KQD is not None:
            index = inputs.query_KL.nonzero(as_tuple=True)
            embeds = embeds.index_put(index, queries_KQD.flatten(0, 1).to(embeds.dtype))
        out = self.lm.model(
            inputs_embeds=embeds,
            **pixels,
            attention_mask=attention_mask(self.lm, mask[:, None]),
            position_ids=positions,
            **cache_arguments(self.lm.model, cache),
        )
        return out.last_hidden_state, inputs, positions

    def encode_texts(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        target_ids: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None,
        parallel: bool = False,
    ) -> torch.Tensor:
        """See ``Decoder.encode_texts``."""
        hidden, inputs, _ = self._forward(
            prefix, image_index_K, prompts, target_ids, attend_image_K, queries_KQD, parallel
        )
        items = pad_targets(target_ids, queries_KQD, 0)
        text_M, item_M = hidden_state_index([len(i) for i in items], image_index_K.device)
        return hidden[text_M, inputs.prompt_lengths_K[text_M] - 1 + item_M]

    def prefill(self, prefix: Prefix, prompts: Sequence[str]) -> tuple[DecodingState, torch.Tensor]:
        """See ``Decoder.prefill``."""
        rows = torch.arange(prefix.batch_size, device=prefix.tokens_BND.device)
        cache = DynamicCache(config=self.lm.config.get_text_config())
        no_targets: list[list[int]] = [[] for _ in prompts]
        hidden, inputs, positions = self._forward(prefix, rows, prompts, no_targets, cache=cache)
        last = inputs.prompt_lengths_K - 1
        following = positions[..., rows, last] + 1
        next_position = following.amax(0) if following.ndim == 2 else following
        axes = positions.shape[0] if positions.ndim == 3 else 0
        state = DecodingState(cache, inputs.valid_KL, next_position, prefix, {"axes": axes})
        return state, hidden[rows, last]

    def decode_step(self, state: DecodingState, ids_B: torch.Tensor) -> torch.Tensor:
        """See ``Decoder.decode_step``."""
        one = torch.ones((len(ids_B), 1), dtype=torch.bool, device=ids_B.device)
        state.key_mask_BL = torch.cat([state.key_mask_BL, one], 1)
        position = state.next_position_B[:, None]
        if state.extra["axes"]:
            position = position.expand(state.extra["axes"], -1, -1)
        out = self.lm.model(
            inputs_embeds=self.embed(ids_B[:, None]),
            attention_mask=attention_mask(self.lm, state.key_mask_BL[:, None, None, :]),
            position_ids=position,
            **cache_arguments(self.lm.model, state.cache),
        )
        state.next_position_B = state.next_position_B + 1
        return out.last_hidden_state[:, -1]
