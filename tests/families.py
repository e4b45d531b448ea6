"""Tiny configurations of every decoder family, and tiny vision-language models in folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_ROTARY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
_GROUPED = _ROTARY | {"num_key_value_heads": 1}
_HEADED = _GROUPED | {"head_dim": 16}
_STILL = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
GPT2 = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 512,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}
CAUSAL: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", **GPT2},
    "llama": {"model_type": "llama", **_GROUPED, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", **_GROUPED, "sliding_window": 4096},
    "qwen2": {"model_type": "qwen2", **_GROUPED},
    "qwen3": {"model_type": "qwen3", **_HEADED},
    "smollm3": {"model_type": "smollm3", **_GROUPED},
    "gemma": {"model_type": "gemma", **_HEADED},
    "gemma2": {"model_type": "gemma2", **_HEADED, "query_pre_attn_scalar": 16},
    "gemma3_text": {
        "model_type": "gemma3_text",
        **_HEADED,
        "query_pre_attn_scalar": 16,
        "final_logit_softcapping": 20.0,
    },
    "gpt_neox": {"model_type": "gpt_neox", **_ROTARY, **_STILL},
    "phi": {
        "model_type": "phi",
        **_ROTARY,
        "partial_rotary_factor": 0.5,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
    },
    "phi3": {"model_type": "phi3", **_ROTARY, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "olmo2": {"model_type": "olmo2", **_GROUPED},
    "granite": {
        "model_type": "granite",
        **_GROUPED,
        "logits_scaling": 4.0,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
    },
    "cohere": {"model_type": "cohere", **_GROUPED, "logit_scale": 0.25},
}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
SEQ2SEQ: dict[str, dict[str, Any]] = {
    "t5": {"model_type": "t5", **_T5},
    "t5_v1_1": {
        "model_type": "t5",
        **_T5,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
    "umt5": {"model_type": "umt5", **_T5},
}
_TEXT = {**_GROUPED, "hidden_size": 32}
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


def decoder_config(family: str) -> dict[str, Any]:
    """The ``decoder:`` section of a family with random weights."""
    if family in CAUSAL:
        return {"name": "causal", "vocab_size": 800, "config": CAUSAL[family]}
    return {"name": "seq2seq", "vocab_size": 800, "config": SEQ2SEQ[family]}


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
    from transformers import AutoModelForImageTextToText

    from vla.models.decoders.loading import architecture_from_dict

    tokenizer.add_special_tokens(
        {"bos_token": "<bos>", "additional_special_tokens": _TOKENS[family]}
    )
    config, processor = _parts(family, tokenizer)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(architecture_from_dict(config))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
