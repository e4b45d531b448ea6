"""A tiny vision-language model and processor of any family, from the defaults of its classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from vla.errors import ConfigError
from vla.models.decoders.architecture import architecture_from_dict
from vla.models.decoders.tiny import VLM_SIZE, set_everywhere, tiny_fields
from vla.models.decoders.tiny_processor import set_token_ids, tiny_processor, tiny_tokenizer
from vla.models.decoders.tiny_tables import DEFAULT_ROPE
from vla.models.decoders.vlm_inputs import find_placement, image_token_id, process, with_token_types

# Families without a processor of their own in transformers: they take that of another.
_LIKE = {
    "cosmos3_omni": "qwen3_vl",
    "diffusion_gemma": "gemma4",
    "fast_vlm": "llava",
    "glm4v_moe": "glm4v",
    "glm_ocr": "glm46v",
    "qwen3_vl_moe": "qwen3_vl",
}
# Values where the defaults of a class are incomplete or do not fit each other.
_FIXES: dict[str, dict[str, Any]] = {
    "aria": {"vision_config": {"patch_size": 14, "image_size": 490}},
    "cohere_compass": {
        "text_config": {
            "rope_parameters": {"full_attention": DEFAULT_ROPE, "sliding_attention": DEFAULT_ROPE}
        }
    },
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse"]}},
    "hunyuan_vl": {"text_config": {"head_dim": 48}},
}


def vlm_families() -> tuple[str, ...]:
    """Every model type of ``AutoModelForImageTextToText``."""
    return tuple(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def tiny_family(family: str) -> tuple[dict[str, Any], Any]:
    """(configuration as plain data, processor) of a tiny model of a family.

    Both come from the defaults of the family's classes. Image sizes and token counts are tried
    until the model accepts an image.

    Raises:
        ConfigError: the defaults of the classes give no model that reads an image.
    """
    errors: list[str] = []
    counts: tuple[int, ...] = ()
    for _ in range(2):
        for tiny, processor in _variants(family, counts):
            try:
                with torch.random.fork_rng(devices=[]), torch.no_grad():
                    _read_image(tiny, processor)
                return tiny, processor
            except Exception as error:  # the code of a family may raise anything
                errors.append(f"{type(error).__name__}: {error}".replace("\n", " "))
        found = (re.search(r"features:? (\d+)", text) for text in errors)
        counts = tuple(dict.fromkeys(int(m[1]) for m in found if m))
        if not counts:
            break
    raise ConfigError(f"no tiny model from the defaults of its classes ({errors[-1][:120]})")


def _read_image(config: dict[str, Any], processor: Any) -> None:
    """One forward pass of a model of random weights on one image and a question."""
    model = AutoModelForImageTextToText.from_config(
        architecture_from_dict(config, strict=False), trust_remote_code=False
    ).eval()
    placement = find_placement(processor, image_token_id(model.config))
    images = [[torch.zeros(3, 64, 64, dtype=torch.uint8)]]
    inputs = process(processor, placement, images, [placement.markup + "what is this"])
    inputs = with_token_types(model, processor, inputs)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :1]
    model(**inputs)


def _variants(family: str, counts: Sequence[int]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Tiny configurations and processors of several image sizes.

    Each is tried with ``counts`` tokens in an image, or with all likely numbers if it is empty.
    """
    like = _LIKE.get(family, family)
    if CONFIG_MAPPING[like] not in PROCESSOR_MAPPING:
        raise ConfigError("transformers has no processor for this family")
    cls = PROCESSOR_MAPPING[CONFIG_MAPPING[like]]
    fixes = _FIXES.get(family, {})
    default = _merged(AutoConfig.for_model(family).to_dict(), fixes)
    for patches in (4, 8, 0):
        tiny = _merged(tiny_fields(default, VLM_SIZE), fixes)
        vision = tiny.get("vision_config") or {}
        side = _set_image_size(vision, patches)
        if side and "image_grid_pinpoints" in tiny:
            tiny["image_grid_pinpoints"] = [[side, 2 * side], [2 * side, side]]
        for count in counts or _image_token_counts(tiny, vision, side):
            tokenizer = tiny_tokenizer(cls, default)
            processor = tiny_processor(cls, like, tokenizer, tiny, side, count)
            marks = {v for k, v in vars(processor).items() if k.endswith("_token") and v}
            if tokenizer.add_tokens(sorted(map(str, marks)), special_tokens=True):
                processor = tiny_processor(cls, like, tokenizer, tiny, side, count)
            sized = set_everywhere(tiny, "vocab_size", len(tokenizer))
            set_token_ids(sized, processor)
            yield sized | {"model_type": family}, processor
        if not side:
            return


def _merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of nested plain data with some values replaced."""
    nested = {k: _merged(config.get(k) or {}, v) for k, v in changes.items() if isinstance(v, dict)}
    return config | changes | nested


def _set_image_size(vision: dict[str, Any], patches: int) -> int:
    """Set images of ``patches`` patches a side; their side in px, 0 for images of any size."""
    size, patch = vision.get("image_size"), vision.get("patch_size")
    if size is None or patch is None:
        return 0
    whole = size[0] if isinstance(size, list | tuple) else size
    side = patches * (patch[0] if isinstance(patch, list | tuple) else patch) or whole
    vision["image_size"] = [side] * len(size) if isinstance(size, list | tuple) else side
    return side


def _image_token_counts(config: dict[str, Any], vision: dict[str, Any], side: int) -> list[int]:
    """Possible numbers of tokens of one image."""
    if "mm_tokens_per_image" in config:
        config["mm_tokens_per_image"] = 4
        return [4]
    if not side:
        return [16, 100, 256]
    patch = vision["patch_size"]
    patches = side // (patch[0] if isinstance(patch, list | tuple) else patch)
    return [(patches // down) ** 2 for down in (1, 2, 4) if patches >= down]
