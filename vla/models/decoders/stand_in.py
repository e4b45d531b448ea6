"""Tokenizers and processors in place of those of pretrained models, for plans without downloads."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tokenizers import pre_tokenizers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from vla.errors import ConfigError
from vla.models.decoders.architecture import architecture_from_dict
from vla.models.decoders.tiny_processor import set_token_ids, tiny_processor, tiny_tokenizer
from vla.models.decoders.tokenizer import train_tokenizer

_VOCABULARY = 2048
# Published settings of processors that differ from the defaults of their classes.
_SIZES = {
    "qwen3_vl": {"shortest_edge": 65536, "longest_edge": 16777216},
    "idefics3": {"longest_edge": 2048},
}


def stand_in_tokenizer(words: Counter[str]) -> Any:
    """A tokenizer with one token for each known word and each digit, as in recent models."""
    tokenizer = train_tokenizer(words, _VOCABULARY)
    digits = pre_tokenizers.Digits(individual_digits=True)
    spaces = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, spaces])
    return tokenizer


def stand_in_processor(config: dict[str, Any], words: Counter[str]) -> tuple[dict[str, Any], Any]:
    """The processor of a vision-language model, and its configuration with the ids of its tokens.

    Args:
        config: ``model_type`` and the fields of the published model.
        words: word counts of the texts.

    Raises:
        ConfigError: transformers has no processor for this family.
    """
    whole = architecture_from_dict(config, strict=False).to_dict()
    family = whole["model_type"]
    if CONFIG_MAPPING[family] not in PROCESSOR_MAPPING:
        raise ConfigError(f"policy.decoder: transformers has no processor for {family}")
    cls = PROCESSOR_MAPPING[CONFIG_MAPPING[family]]
    vision = whole.get("vision_config") or {}
    side = vision.get("image_size") or 0
    side = side[0] if isinstance(side, list | tuple) else side
    if "mm_tokens_per_image" in whole:
        count = whole["mm_tokens_per_image"]
    elif side:
        count = (side // vision["patch_size"] // (whole.get("scale_factor") or 1)) ** 2
    else:
        count = 0  # the processor computes it from the size of the image
    tokenizer = tiny_tokenizer(cls, whole, stand_in_tokenizer(words))
    processor = tiny_processor(cls, family, tokenizer, whole, side, count)
    marks = {v for k, v in vars(processor).items() if k.endswith("_token") and v}
    if tokenizer.add_tokens(sorted(map(str, marks)), special_tokens=True):
        processor = tiny_processor(cls, family, tokenizer, whole, side, count)
    if family in _SIZES:
        processor.image_processor.size = _SIZES[family]
    set_token_ids(whole, processor)
    return whole, processor
