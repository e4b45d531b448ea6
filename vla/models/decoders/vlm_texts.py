"""Texts about images in a whole vision-language model: one sequence per text."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from vla.models.decoders.base import DecodingState, Prefix, hidden_state_index, pad_targets
from vla.models.decoders.language import cache_arguments
from vla.models.decoders.own_forward import (
    Pass,
    drop_last_columns,
    new_cache,
    next_positions,
    own_forward,
    start_token,
)
from vla.models.decoders.separate import TextDecoder
from vla.models.decoders.vlm_inputs import (
    VLMInputs,
    append_items,
    find_placement,
    image_token_id,
    images_of_texts,
    process,
    with_token_types,
)


class VLMTexts(TextDecoder):
    """A vision-language model that implements ``Decoder``; see ``VLMDecoder`` for its options.

    template: order of images and prompt.
    processor: of the model; None before ``use_processor``.
    """

    is_vlm = True
    template = "{images}{prompt}"
    processor: Any = None

    def use_processor(self, processor: Any) -> None:
        """Set the processor and find out how it takes images."""
        self.processor = processor
        self.placement = find_placement(processor, image_token_id(self.lm.config))
        self.start = start_token(self.lm, self.tokenizer)
        self.keeps_rows_apart = self.start is None
        parameters = inspect.signature(type(self.lm).forward).parameters
        self._takes_positions = "position_ids" in parameters

    def image_prefix(
        self, images_BVTCHW: torch.Tensor, state_BND: torch.Tensor | None = None
    ) -> Prefix:
        """A prefix with the uint8 images, which are encoded together with the text.

        ``state_BND`` are embeddings that stand between the prompt and the target items.
        """
        if state_BND is None:
            shape = (len(images_BVTCHW), 0, self.width)
            state_BND = torch.zeros(shape, device=images_BVTCHW.device)
        return Prefix(state_BND, images_BVCHW=images_BVTCHW.flatten(1, 2))

    def process(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        items: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None = None,
    ) -> VLMInputs:
        """The model's inputs: prompts with images, then items."""
        views = images_of_texts(prefix, image_index_K, attend_image_K)
        markup = self.placement.markup * len(views[0])
        texts = [self.template.format(images=markup, prompt=p) for p in prompts]
        processed = process(self.processor, self.placement, views, texts)
        processed = with_token_types(self.lm, self.processor, processed)
        on_device = {k: v.to(image_index_K.device) for k, v in processed.items()}
        kind, pad = self.lm.config.model_type, self.tokenizer.pad_token_id
        return append_items(on_device, items, pad, kind, self.start)

    def _forward(self, arguments: dict[str, Any], ids_KL: torch.Tensor, **splice: Any) -> Pass:
        """One pass of the model; see ``own_forward``."""
        cache = cache_arguments(self.lm, splice.pop("cache", None))
        return own_forward(self.lm, arguments | cache, ids_KL, self.trainable_embeddings, **splice)

    def _encode(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        target_ids: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None,
        queries_KQD: torch.Tensor | None,
        parallel: bool,
    ) -> torch.Tensor:
        """See ``TextDecoder``."""
        device, pad = image_index_K.device, self.tokenizer.pad_token_id
        state_KND = prefix.tokens_BND.index_select(0, image_index_K)
        ahead = state_KND.shape[1]
        targets = pad_targets(target_ids, queries_KQD, pad)
        items = [[pad] * ahead + some for some in targets]
        inputs = self.process(prefix, image_index_K, prompts, items, attend_image_K)
        first_K1 = inputs.lengths_K[:, None]
        values, columns = [state_KND], [first_K1 + torch.arange(ahead, device=device)]
        parallel_KL = None
        if queries_KQD is not None:
            after = torch.tensor([len(t) for t in target_ids], device=device)[:, None] + ahead
            query = torch.arange(queries_KQD.shape[1], device=device)
            values.append(queries_KQD.to(state_KND.dtype))
            columns.append(first_K1 + after + query)
            if parallel:
                parallel_KL = torch.zeros_like(inputs.valid_KL).scatter(1, columns[-1], True)
        splice = {"values_KND": torch.cat(values, 1), "columns_KN": torch.cat(columns, 1)}
        out = self._forward(inputs.arguments, inputs.ids_KL, parallel_KL=parallel_KL, **splice)
        text_M, item_M = hidden_state_index([len(t) for t in targets], device)
        return out.hidden_KLD[text_M, inputs.lengths_K[text_M] - 1 + ahead + item_M]

    @property
    def takes_drafts(self) -> bool:
        """See ``Decoder``; in one stack a dropped token is masked, so positions must be given."""
        return super().takes_drafts and (self.start is not None or self._takes_positions)

    def _prefill(
        self, prefix: Prefix, prompts: Sequence[str], proposals: Sequence[Sequence[int]]
    ) -> tuple[DecodingState, torch.Tensor]:
        """See ``TextDecoder``."""
        state_BND = prefix.tokens_BND
        device, ahead = state_BND.device, state_BND.shape[1]
        rows = torch.arange(prefix.batch_size, device=device)
        items = [[self.tokenizer.pad_token_id] * ahead + list(some) for some in proposals]
        inputs = self.process(prefix, rows, prompts, items)
        cache = new_cache(self.lm)
        columns = inputs.lengths_K[:, None] + torch.arange(ahead, device=device)
        splice = {"values_KND": state_BND, "columns_KN": columns, "cache": cache}
        out = self._forward(inputs.arguments, inputs.ids_KL, **splice)
        last = inputs.lengths_K - 1 + ahead
        extra: dict[str, Any] = {
            "start": next_positions(out.positions, inputs.ids_KL.shape, last),
            "first_B": last + 1,
            "new": max(map(len, proposals)),
            "fixed": {name: inputs.arguments[name][rows, last][:, None] for name in inputs.wide},
        }
        if self.start is not None:
            encoded = BaseModelOutput(last_hidden_state=out.output.encoder_last_hidden_state)
            mask = inputs.arguments["attention_mask"]
            extra["fixed"] = {"encoder_outputs": encoded, "attention_mask": mask}
        state = DecodingState(cache, inputs.valid_KL, last + 1, prefix, extra)
        counts = torch.tensor([len(p) for p in proposals], device=device)
        extra["positions"] = extra["start"] + counts[:, None]
        columns = last[:, None] + torch.arange(extra["new"] + 1, device=device)
        return state, out.hidden_KLD[rows[:, None], columns.clamp(max=inputs.ids_KL.shape[1] - 1)]

    def _decode_step(self, state: DecodingState, ids_BL: torch.Tensor) -> torch.Tensor:
        """See ``TextDecoder``."""
        extra, new = state.extra, ids_BL.shape[1]
        extra["first_B"] = torch.full_like(extra["first_B"], state.key_mask_BL.shape[1])
        one = torch.ones_like(ids_BL, dtype=torch.bool)
        state.key_mask_BL = torch.cat([state.key_mask_BL, one], 1)
        extra["start"], extra["new"] = extra["positions"], new
        if self.start is not None:
            arguments = extra["fixed"] | {"decoder_input_ids": ids_BL}
        else:
            arguments = {k: v.expand(-1, new, *v.shape[2:]) for k, v in extra["fixed"].items()}
            arguments |= {"input_ids": ids_BL, "attention_mask": state.key_mask_BL.long()}
            if self._takes_positions:
                offset = torch.arange(new, device=ids_BL.device)
                arguments["position_ids"] = extra["start"] + offset
        extra["positions"] = extra["start"] + new
        return self._forward(arguments, ids_BL, cache=state.cache).hidden_KLD

    def keep(self, state: DecodingState, count_B: torch.Tensor) -> None:
        """See ``Decoder.keep``."""
        extra, mask = state.extra, state.key_mask_BL
        if self.start is not None:
            drop_last_columns(state.cache, extra["new"] - int(count_B.max()))
        else:
            column = torch.arange(mask.shape[1], device=mask.device)
            state.key_mask_BL = mask & (column < (extra["first_B"] + count_B)[:, None])
        extra["positions"] = extra["start"] + count_B[:, None]
