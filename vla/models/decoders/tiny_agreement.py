"""Fields of a tiny configuration that must fit its other fields."""

from __future__ import annotations

import re
from typing import Any

from vla.models.decoders.tiny_tables import DEPTH


def agree(tiny: dict[str, Any], fields: dict[str, Any], layers: int) -> None:
    """Set the fields of ``tiny`` that depend on others, as they do in ``fields``.

    Args:
        tiny: fields of the tiny model.
        fields: of the real model.
        layers: number of layers of the tiny model.
    """
    if fields.get("head_dim") and fields["head_dim"] == fields.get("qk_rope_head_dim"):
        tiny["head_dim"] = tiny["qk_rope_head_dim"]
    if fields.get("qk_head_dim") and "qk_nope_head_dim" in tiny:
        tiny["qk_head_dim"] = tiny["qk_nope_head_dim"] + tiny["qk_rope_head_dim"]
    if fields.get("num_kv_shared_layers"):
        tiny["num_kv_shared_layers"] = layers // 2
    if fields.get("num_key_value_heads", -1) == fields.get("num_attention_heads"):
        tiny["num_key_value_heads"] = tiny["num_attention_heads"]
    start = fields.get("decoder_start_token_id")
    if start is not None and start == fields.get("pad_token_id"):
        tiny["decoder_start_token_id"] = tiny["pad_token_id"]
    if "intermediate_layers_indices" in tiny and "vision_output_dim" in tiny:  # Mllama
        count = 1 + len(tiny["intermediate_layers_indices"])
        tiny["vision_output_dim"] = count * tiny["hidden_size"]
    vision = tiny.get("vision_config")
    if isinstance(vision, dict):
        depth = next((vision[n] for n in vision if DEPTH.fullmatch(n)), 2)
        for name, value in tiny.items():
            if re.fullmatch(r"vision_feature_layer|.*vision_layer", name):
                tiny[name] = _clamp(value, depth)
            elif isinstance(value, dict) and "vision_feature_layer" in value:
                value["vision_feature_layer"] = _clamp(value["vision_feature_layer"], depth)


def shrink_rope(tiny: dict[str, Any], head_dim: int, sections: bool) -> None:
    """Give rotary positions one factor per frequency of a tiny head (LongRoPE), and small sections.

    Args:
        tiny: fields of the tiny model.
        head_dim: of a model without fields for it.
        sections: add sections of time, height and width where the configuration has none.
    """
    for name, rope in tiny.items():
        if not isinstance(rope, dict) or not name.startswith("rope_"):
            continue
        partial = rope.get("partial_rotary_factor") or tiny.get("partial_rotary_factor") or 1.0
        width, heads = tiny.get("hidden_size"), tiny.get("num_attention_heads")
        usual = width // heads if isinstance(width, int) and isinstance(heads, int) else head_dim
        head = tiny.get("qk_rope_head_dim") or tiny.get("head_dim") or usual
        half = int(head * partial) // 2
        tiny[name] = {
            k: v[:half] if k.endswith("_factor") and isinstance(v, list) else v
            for k, v in rope.items()
        }
        three = "rope_theta" in rope and rope.get("rope_type") != "axial" and sections
        if three or "mrope_section" in rope:
            side = half // 3
            tiny[name]["mrope_section"] = [half - 2 * side, side, side]


def _clamp(value: Any, layers: int) -> Any:
    """Indices of hidden states within a shorter stack; from the end where they were."""
    if isinstance(value, int):
        return max(-layers, value) if value < 0 else min(value, layers)
    return [_clamp(v, layers) for v in value] if isinstance(value, list | tuple) else value
