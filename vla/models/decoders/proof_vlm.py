"""Start-up proof of whole vision-language models: a tiny model of the same configuration class."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from vla.models.decoders.architecture import architecture_from_dict
from vla.models.decoders.base import Prefix
from vla.models.decoders.checks import (
    GRADIENTS,
    PROMPTS,
    Subject,
    encode_one,
    from_the_end,
    same,
)
from vla.models.decoders.proof import Check, Verdict, cached, one_line
from vla.models.decoders.proving import prove
from vla.models.decoders.tiny import VLM_SIZE, tiny_fields
from vla.models.decoders.tiny_models import isolated, randomise
from vla.models.decoders.tiny_vlm import tiny_family
from vla.models.decoders.vlm_texts import VLMTexts

# Levels that adapters add to the name of a weight.
_ADAPTER = re.compile(r"\.(base_layer|lora_[AB]\.[^.]+)\.")


def prove_vlm(config: Any, processor: Any) -> Verdict:
    """The verdict on a model's configuration with its own processor.

    A tiny model of the same configuration class is checked: the same structure, the same processor
    and token ids, small widths, few layers, random weights. The weights of the model itself are
    not read.

    Args:
        config: a transformers configuration of ``AutoModelForImageTextToText``.
        processor: the processor of the model.
    """
    tiny = tiny_fields(config, VLM_SIZE)
    about = {"config": tiny, "processor": str(processor)}
    return cached("vlm", config.model_type, about, lambda: _prove(tiny, processor))


def prove_vlm_family(family: str) -> Verdict:
    """The verdict on a model type, from the defaults of its configuration and processor."""

    def prove_defaults() -> Verdict:
        try:
            with isolated():
                tiny, processor = tiny_family(family)
        except Exception as error:  # the code of a family may raise anything
            return Verdict("vlm", family, (Check("tiny model", False, one_line(error)),))
        return _prove(tiny, processor)

    return cached("vlm", family, {"defaults": True}, prove_defaults)


def unused_parameters(verdict: Verdict, lm: nn.Module) -> list[nn.Parameter]:
    """The weights of ``lm``, and their adapters, that no output depends on."""
    unused = next((c.detail for c in verdict.checks if c.name == GRADIENTS), "").split()
    named = ((from_the_end(lm, _ADAPTER.sub(".", n)), p) for n, p in lm.named_parameters())
    return [p for name, p in named if name in unused]


def _prove(tiny: dict[str, Any], processor: Any) -> Verdict:
    """The verdict on a tiny configuration."""

    def make() -> VLMTexts:
        config = architecture_from_dict(copy.deepcopy(tiny), strict=False)
        lm = AutoModelForImageTextToText.from_config(config, trust_remote_code=False).float()
        decoder = VLMTexts.of_model(lm, processor.tokenizer)
        decoder.fit_vocabulary()
        randomise(lm)
        decoder.use_processor(processor)
        return decoder

    return prove("vlm", tiny["model_type"], make, _subject)


def _subject(decoder: VLMTexts) -> Subject:
    images = torch.randint(0, 256, (2, 1, 1, 3, 64, 64), dtype=torch.uint8)
    plain = decoder.image_prefix(images)
    state = decoder.image_prefix(images, 0.1 * torch.randn(2, 1, decoder.width))

    def own(row: Prefix, prompt: str, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        given = decoder.process(row, torch.zeros(1, dtype=torch.long), [prompt], [ids]).arguments
        ours = decoder.logits(encode_one(decoder, row, prompt, ids))
        theirs = decoder.lm(**given, use_cache=False).logits[0, -len(ids) - 1 :]
        return ours, theirs[:, : ours.shape[-1]]

    row = plain.select([0])
    generation = ("logits equal the model's own generation", lambda: _generation(decoder, row))
    return Subject(decoder, plain, state, own, (row,), (generation,))


@torch.no_grad()
def _generation(decoder: VLMTexts, row: Prefix) -> str:
    """Logits of four greedy tokens, and those of the model's own ``generate``."""
    inputs = decoder.process(row, torch.zeros(1, dtype=torch.long), [PROMPTS[0]], [[]]).arguments
    given = {k: v for k, v in inputs.items() if k != "decoder_input_ids"}
    out = decoder.lm.generate(
        **given,
        max_new_tokens=4,
        min_new_tokens=4,
        do_sample=False,
        num_beams=1,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = out.sequences[0, -4:].tolist()
    ours = decoder.logits(encode_one(decoder, row, PROMPTS[0], ids[:-1]))
    return same(ours, torch.cat(list(out.logits))[:, : ours.shape[-1]])
