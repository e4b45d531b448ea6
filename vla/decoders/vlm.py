"""A whole Hugging Face vision-language model as the decoder: RT-2's "no architectural change"."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoProcessor, DynamicCache

from vla.config import register
from vla.decoders.base import Decoding, Prefix, states_of, tail_ids
from vla.decoders.language import LanguageModel, attention_mask, with_cache
from vla.pretrained import locate
from vla.tuning import LoraConfig

# model types whose logits are proven equal to their own forward's in the tests; the value: whether image and prompt see each other both ways
FAMILIES = {"paligemma": True, "llava": False, "idefics3": False, "smolvlm": False, "qwen2_5_vl": False, "qwen3_vl": False}
_TEXT_KEYS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels")


def _idle(lm: Any) -> list[nn.Parameter]:
    """Weights that no output depends on: LLaVA reads its eyes before their last layers."""
    if lm.config.model_type != "llava" or not isinstance(lm.config.vision_feature_layer, int):
        return []
    layers = next(m for n, m in lm.model.vision_tower.named_modules() if n.endswith("layers") and isinstance(m, nn.ModuleList))
    idle = list(layers[lm.config.vision_feature_layer % (len(layers) + 1) :])
    last = [m for n, m in lm.model.vision_tower.named_modules() if n.endswith("post_layernorm")]
    return [p for module in idle + last for p in module.parameters()]


@register("decoder", "vlm")
class WholeVLM(LanguageModel):
    """``AutoModelForImageTextToText`` with its own eyes and its own processor; no vision encoder or connector beside it.

    Every text has its own sequence (rotary positions of some families depend on the whole of it), so alternatives and questions that share
    an image cost as much as rows: set ``data.window.segments`` low.

    Args:
        model: local folder or hub name, with its processor. config: its architecture, where the weights are not to be loaded.
        template: how images and prompt stand together; ``{images}`` is the family's own markup for all views, in order.
        frozen, lora: what is trained, see ``vla.tuning``. checkpointing: trade time for memory in training. quantize: hold the model's own weights in 4 bits (with
        ``lora``: QLoRA); saved policies have them in full again.
        tokenizer, folder: (wired) the tokenizer, and the folder of a saved policy that has the processor.

    Raises:
        ValueError: a family that is not among ``FAMILIES``.
    """

    whole = True

    def __init__(
        self, model: str, config: dict[str, Any] | None = None, template: str = "{images}{prompt}", frozen: bool = False, lora: LoraConfig | None = None,
        checkpointing: bool = False, quantize: Literal["4bit"] | None = None, *, tokenizer: Any = None, folder: Path | None = None, pretrained: bool = True,
    ) -> None:  # fmt: skip
        if "{images}" not in template or "{prompt}" not in template:
            raise ValueError(f"decoder.template={template!r}: must contain {{images}} and {{prompt}}")
        super().__init__("vlm", model, config, tokenizer, pretrained, frozen, lora, checkpointing, quantize)
        self.template, kind = template, self.lm.config.model_type
        if kind not in FAMILIES:
            raise ValueError(f"decoder.model={model!r} is a {kind!r}; proven families are {', '.join(FAMILIES)}")
        self.both_ways = FAMILIES[kind]
        self.processor: Any = None
        if folder is not None or pretrained:
            self.processor = AutoProcessor.from_pretrained(str(folder) if folder else locate(model).path)
            self.processor.tokenizer = tokenizer

    def settle(self, new_rows: list[int]) -> None:
        """Freeze or adapt, once all parts are there."""
        super().settle(new_rows)
        for parameter in _idle(self.lm):
            parameter.requires_grad_(False)

    def see(self, images_BVTCHW: torch.Tensor) -> Prefix:
        """Raw views; the model's own processor and eyes come later, with the text."""
        empty = torch.zeros((len(images_BVTCHW), 0, self.width), device=images_BVTCHW.device)
        return Prefix(empty, images_BVCHW=images_BVTCHW.flatten(1, 2))

    def inputs(self, prefix: Prefix, owner_K: torch.Tensor, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """What the family's processor makes of images and prompts, padded on the right."""
        assert prefix.images_BVCHW is not None
        views = prefix.images_BVCHW.shape[1]
        marks = ("<|vision_start|>", "<|vision_end|>")  # Qwen's; others have none, or their processor puts them
        start, end = marks if marks[0] in self.tokenizer.get_vocab() else ("", "")
        markup = (start + self.processor.image_token + end) * views
        texts = [self.template.format(images=markup, prompt=p) for p in prompts]
        images = [list(prefix.images_BVCHW[row].cpu()) for row in owner_K.tolist()]
        with warnings.catch_warnings():  # PaliGemma's processor makes numpy arrays of tensors
            warnings.simplefilter("ignore", DeprecationWarning)
            out = self.processor(images=images, text=texts, return_tensors="pt", padding=True, padding_side="right")
        return {k: v.to(owner_K.device) for k, v in out.items() if isinstance(v, torch.Tensor)}

    def _positions(self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor | None, pixels: dict[str, Any]) -> torch.Tensor:
        """(K, L), or (3, K, L) for families with rotary positions in time, height and width."""
        if not hasattr(self.lm.model, "get_rope_index"):
            return torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
        grid = pixels.get("image_grid_thw")
        return self.lm.model.get_rope_index(
            input_ids=ids, mm_token_type_ids=kinds, image_grid_thw=grid, attention_mask=mask.long()
        )[0]

    def _forward(
        self, prefix: Prefix, owner_K: torch.Tensor, prompts: Sequence[str], tails: Sequence[Sequence[int]], sees_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None, parallel: bool = False, cache: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """(hidden (K, L, D), prompt lengths (K,), positions, which columns are there (K, L))."""
        given, device = self.inputs(prefix, owner_K, prompts), owner_K.device
        pixels = {k: v for k, v in given.items() if k not in _TEXT_KEYS}
        lengths = given["attention_mask"].sum(1)
        items = tail_ids(tails, queries_KQD, self.tokenizer.pad_token_id)
        counts = torch.tensor([len(t) for t in items], device=device)
        column = torch.arange(int((lengths + counts).max()), device=device)[None]
        ids = torch.full((len(items), column.shape[1]), self.tokenizer.pad_token_id, device=device)
        kinds = torch.zeros_like(ids)
        for k, (n, tail) in enumerate(zip(lengths.tolist(), items, strict=True)):
            ids[k, :n] = given["input_ids"][k, :n]
            ids[k, n : n + len(tail)] = torch.tensor(tail, dtype=torch.long, device=device)
            if "mm_token_type_ids" in given:
                kinds[k, :n] = given["mm_token_type_ids"][k, :n]
        there, in_tail = column < (lengths + counts)[:, None], column >= lengths[:, None]
        mask = (column[0][:, None] >= column[0][None, :]).expand(len(items), -1, -1)
        if self.both_ways:
            mask = mask | (~in_tail[:, :, None] & ~in_tail[:, None, :])
        in_query = there & (column >= lengths[:, None] + torch.tensor([len(t) for t in tails], device=device)[:, None])
        if parallel:
            mask = mask | (in_query[:, :, None] & in_query[:, None, :])
        if sees_K is not None:
            picture = ids == self.lm.config.image_token_id
            hidden_from = picture[:, None, :] & ~picture[:, :, None] & ~sees_K[:, None, None]
            mask = mask & ~hidden_from
        mask = mask & there[:, None, :] | torch.eye(
            column.shape[1], dtype=torch.bool, device=device
        )  # padding sees itself: no row is empty
        positions = self._positions(ids, there, kinds, pixels)
        embeds = self.embed(ids)
        if queries_KQD is not None:
            embeds = embeds.index_put(in_query.nonzero(as_tuple=True), queries_KQD.flatten(0, 1).to(embeds.dtype))
        out = self.lm.model(
            inputs_embeds=embeds,
            **pixels,
            attention_mask=attention_mask(self.lm, mask[:, None]),
            position_ids=positions,
            **with_cache(self.lm.model, cache),
        )
        return out.last_hidden_state, lengths, positions, there

    def read(
        self, prefix: Prefix, owner_K: torch.Tensor, prompts: Sequence[str], tails: Sequence[Sequence[int]], sees_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None, parallel: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """See ``Decoder.read``."""
        hidden, lengths, _, _ = self._forward(prefix, owner_K, prompts, tails, sees_K, queries_KQD, parallel)
        text_M, item_M = states_of([len(t) for t in tail_ids(tails, queries_KQD, 0)], owner_K.device)
        return hidden[text_M, lengths[text_M] - 1 + item_M]

    def start(self, prefix: Prefix, prompts: Sequence[str]) -> tuple[Decoding, torch.Tensor]:
        """See ``Decoder.start``."""
        rows = torch.arange(prefix.rows, device=prefix.tokens_BND.device)
        cache = DynamicCache(config=self.lm.config.get_text_config())
        hidden, lengths, positions, there = self._forward(prefix, rows, prompts, [[] for _ in prompts], cache=cache)
        following = positions[..., rows, lengths - 1] + 1
        state = Decoding(cache, there, following.amax(0) if following.ndim == 2 else following, prefix)
        state.extra["axes"] = positions.shape[0] if positions.ndim == 3 else 0
        return state, hidden[rows, lengths - 1]

    def step(self, state: Decoding, ids_B: torch.Tensor) -> torch.Tensor:
        """See ``Decoder.step``."""
        one = torch.ones((len(ids_B), 1), dtype=torch.bool, device=ids_B.device)
        state.keys_BL = torch.cat([state.keys_BL, one], 1)
        position = state.next_B[:, None]
        if state.extra["axes"]:
            position = position.expand(state.extra["axes"], -1, -1)
        mask = attention_mask(self.lm, state.keys_BL[:, None, None, :])
        out = self.lm.model(
            inputs_embeds=self.embed(ids_B[:, None]),
            attention_mask=mask,
            position_ids=position,
            **with_cache(self.lm.model, state.cache),
        )
        state.next_B = state.next_B + 1
        return out.last_hidden_state[:, -1]
