"""Processors of tiny vision-language models, from the defaults of their classes."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from typing import Any

import transformers
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

from vla.models.decoders.tokenizer import train_tokenizer

_VOCABULARY = 800
_USUAL = ("bos", "eos", "pad", "unk", "sep", "cls", "mask", "additional_special")


def tiny_tokenizer(cls: Any, config: dict[str, Any], trained: Any = None) -> Any:
    """A small tokenizer with every special token that the source of the processor names.

    ``trained``: the tokenizer that gets these tokens; None: one that knows a short question.
    """
    if trained is None:
        trained = train_tokenizer(Counter({"what": 9, "is": 9, "this": 9, "red": 5}), _VOCABULARY)
    source = inspect.getsource(sys.modules[cls.__module__])
    names = re.findall(r"tokenizer\.(\w+)_token\b|tokenizer, \"(\w+)_token\"", source)
    own = [] if "AddedToken(" in source else ["image"]  # BLIP-2 adds its token itself
    kinds = dict.fromkeys([*own, *(a or b for a, b in names)])
    named = {
        f"{kind}_token": f"<{kind}>"
        for kind in kinds
        if kind not in _USUAL and not kind.startswith("add_")
    }
    if "vision_start_token_id" in config:
        named["vision_start_token"] = "<|vision_start|>"
        named["vision_end_token"] = "<|vision_end|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained.backend_tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        extra_special_tokens=named,
    )
    literals = re.findall(r"[\"'](<[^\"'\s]{1,40}>|\[[A-Z_]{2,20}\])[\"']", source)
    tokenizer.add_tokens(list(dict.fromkeys(literals)), special_tokens=True)
    return tokenizer


def _part(names: Any, options: dict[str, Any]) -> Any:
    """An image or video processor with those of the options that its class has."""
    if isinstance(names, dict):
        names = names.get("torchvision") or names["pil"]
    cls = getattr(transformers, names)
    options = {k: v for k, v in options.items() if v is not None and hasattr(cls, k)}
    for name in ("size", "max_image_size"):
        default = getattr(cls, name, None)
        if name in options and not isinstance(default, int):
            keys = [k for k, v in dict(default or {}).items() if v is not None]
            options[name] = dict.fromkeys(keys or ("height", "width"), options[name])
    return cls(**options)


def tiny_processor(
    cls: Any, family: str, tokenizer: Any, config: dict[str, Any], side: int, count: int
) -> Any:
    """The family's processor around default parts of the tiny model's sizes."""
    vision = config.get("vision_config") or {}
    patch, strategy = vision.get("patch_size"), config.get("vision_feature_select_strategy")
    merge = config.get("spatial_merge_size") or vision.get("spatial_merge_size")
    options = {
        "patch_size": patch,
        "merge_size": merge,
        "temporal_patch_size": vision.get("temporal_patch_size"),
        "downsample_factor": config.get("downsample_factor"),
        "size": side or None,
        "crop_size": {"height": side, "width": side} if side else None,
        "max_image_size": side or None,
        "image_grid_pinpoints": config.get("image_grid_pinpoints"),
    }
    wanted = cls.get_attributes()
    parts: dict[str, Any] = {"tokenizer": tokenizer}
    parts["image_processor"] = images = _part(IMAGE_PROCESSOR_MAPPING_NAMES[family], options)
    images.image_seq_length = count
    if "video_processor" in wanted:
        parts["video_processor"] = _part(VIDEO_PROCESSOR_MAPPING_NAMES[family], options)
    if "feature_extractor" in wanted:
        parts["feature_extractor"] = _part(FEATURE_EXTRACTOR_MAPPING_NAMES[family], {})
    if "qformer_tokenizer" in wanted:
        parts["qformer_tokenizer"] = tokenizer
    arguments = {
        "patch_size": patch[0] if isinstance(patch, list | tuple) else patch,
        "vision_feature_select_strategy": strategy,
        "num_additional_image_tokens": int(strategy == "default"),
        "downsample_factor": config.get("downsample_factor"),
        "img_size": side,
        "spatial_merge_size": merge,
        "num_query_tokens": config.get("num_query_tokens"),
    }
    arguments |= dict.fromkeys(("image_seq_length", "image_seq_len", "num_image_tokens"), count)
    known = inspect.signature(cls.__init__).parameters
    return cls(**parts, **{k: v for k, v in arguments.items() if k in known and v is not None})


def set_token_ids(config: dict[str, Any], processor: Any) -> None:
    """Write the ids of the tokenizer's special tokens into the configuration."""
    tokenizer = processor.tokenizer
    for part in (config, config.get("text_config") or {}):
        for name, value in part.items():
            found = re.fullmatch(r"(\w+?)_token_(id|index)", name)
            if not found or isinstance(value, list):
                continue
            kind = found[1]
            places = (processor, tokenizer)
            if kind == "image" and processor.image_token == getattr(processor, "boi_token", None):
                places = (tokenizer, processor)  # Gemma: the mark of an image is not its token
            ids = (getattr(place, f"{kind}_token_id", None) for place in places)
            token = getattr(processor, f"{kind}_token", None)
            known = [i for i in ids if isinstance(i, int)]
            if known:
                part[name] = known[0]
            elif isinstance(token, str):
                part[name] = tokenizer.convert_tokens_to_ids(token)
            elif isinstance(value, int):
                part[name] = tokenizer.unk_token_id
