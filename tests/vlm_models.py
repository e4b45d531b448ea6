"""Tiny vision-language models in folders, in the layout of a hub download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
_SIGLIP = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
VLM = ("paligemma", "paligemma2", "llava", "idefics3", "smolvlm", "qwen2_5_vl", "qwen3_vl")
_TOKENS = {
    "paligemma": ["<image>"],
    "paligemma2": ["<image>"],
    "llava": ["<image>"],
    "idefics3": ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"],
    "smolvlm": [
        "<image>",
        "<fake_token_around_image>",
        "<end_of_utterance>",
        "<global-img>",
        "<video>",
    ],
    "qwen2_5_vl": ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"],
    "qwen3_vl": ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"],
}


def _parts(family: str, tokenizer: Any) -> tuple[dict[str, Any], Any]:
    """(model configuration, processor)."""
    import transformers as t

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _TOKENS[family]}
    text = {
        **_TEXT,
        "vocab_size": len(tokenizer),
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 1,
    }
    size = {"height": 32, "width": 32}
    if family.startswith("paligemma"):
        kind = (
            {"model_type": "gemma2", "query_pre_attn_scalar": 16}
            if family == "paligemma2"
            else {"model_type": "gemma"}
        )
        images = t.SiglipImageProcessor(size=size, image_seq_length=16)
        images.image_seq_length = 16
        config = {
            "model_type": "paligemma",
            "text_config": text | kind | {"head_dim": 16},
            "projection_dim": 32,
            "vision_config": {
                "model_type": "siglip_vision_model",
                **_SIGLIP,
                "vision_use_head": False,
                "projection_dim": 32,
            },
            "image_token_id": ids["<image>"],
        }
        return config, t.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)
    if family == "llava":
        config = {
            "model_type": "llava",
            "text_config": text | {"model_type": "llama"},
            "image_token_id": ids["<image>"],
            "vision_config": {"model_type": "clip_vision_model", **_SIGLIP, "projection_dim": 32},
            "vision_feature_layer": -1,
        }
        images = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
        return config, t.LlavaProcessor(
            image_processor=images,
            tokenizer=tokenizer,
            patch_size=8,
            vision_feature_select_strategy="default",
            image_token="<image>",
            num_additional_image_tokens=1,
        )
    if family in ("idefics3", "smolvlm"):
        kind = "idefics3" if family == "idefics3" else "smolvlm"
        config = {
            "model_type": kind,
            "text_config": text | {"model_type": "llama"},
            "scale_factor": 2,
            "image_token_id": ids["<image>"],
            "vision_config": {"model_type": f"{kind}_vision", **_SIGLIP},
            "pad_token_id": 0,
        }
        options = {
            "size": {"longest_edge": 32},
            "max_image_size": {"longest_edge": 32},
            "do_image_splitting": False,
        }
        if family == "idefics3":
            return config, t.Idefics3Processor(
                t.Idefics3ImageProcessor(**options), tokenizer, image_seq_len=4
            )
        video = t.SmolVLMVideoProcessor(size={"longest_edge": 32})
        return config, t.SmolVLMProcessor(
            t.SmolVLMImageProcessor(**options), tokenizer, video, image_seq_len=4
        )
    images = t.Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, temporal_patch_size=2, min_pixels=32 * 32, max_pixels=32 * 32
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    config = {
        "model_type": family,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    vision = {
        "depth": 2,
        "num_heads": 2,
        "intermediate_size": 64,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "hidden_size": 32,
        "out_hidden_size": 32,
        "in_channels": 3,
    }
    if family == "qwen2_5_vl":
        config["text_config"] = text | {"model_type": "qwen2_5_vl_text", "rope_parameters": rope}
        config["vision_config"] = vision | {"window_size": 16, "fullatt_block_indexes": [1]}
        return config, t.Qwen2_5_VLProcessor(
            images, tokenizer, t.Qwen2VLVideoProcessor(patch_size=4)
        )
    config["text_config"] = text | {
        "model_type": "qwen3_vl_text",
        "head_dim": 16,
        "rope_parameters": rope | {"mrope_interleaved": True},
    }
    config["vision_config"] = vision | {
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    return config, t.Qwen3VLProcessor(images, tokenizer, t.Qwen3VLVideoProcessor(patch_size=4))


def make_vlm(family: str, folder: Path, tokenizer: Any) -> str:
    """Write a tiny random model with its processor, in the layout of a hub download."""
    tokenizer.add_special_tokens(
        {"bos_token": "<bos>", "additional_special_tokens": _TOKENS[family]}
    )
    return _write(*_parts(family, tokenizer), folder)


def make_default_vlm(family: str, folder: Path) -> str:
    """Write a tiny model of the defaults of its classes, as ``make_vlm`` does."""
    from vla.models.decoders.tiny_vlm import tiny_family

    return _write(*tiny_family(family), folder)


def _write(config: dict[str, Any], processor: Any, folder: Path) -> str:
    from transformers import AutoModelForImageTextToText

    from vla.models.decoders.architecture import architecture_from_dict

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(architecture_from_dict(config, strict=False))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
