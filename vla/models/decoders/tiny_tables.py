"""Names of the size fields of Hugging Face configurations, and exceptions by family."""

from __future__ import annotations

import re
from typing import Any

# Numbers of layers.
DEPTH = re.compile(
    r"num_hidden_layers|n_layers?|num_layers|depth|layers|encoder_layers|decoder_layers|"
    r"num_decoder_layers|num_global_layers|resampler_depth|num_blocks"
)
# Lists of indices of layers.
LAYER_INDICES = re.compile(
    r".*(indexes|indices|idxs|layer_ids|moe_layers|cross_attention_layers|target_layers)"
)
# Probabilities of what happens in training only.
RANDOM = re.compile(r".*drop.*|.*jitter.*")
# Parts of a vision-language model that are language models.
LANGUAGE_PARTS = ("text_config", "llm_config", "decoder", "encoder")
# Kind of size -> names of its fields in language models.
FIELDS: dict[str, tuple[str, ...]] = {
    "width": (
        "hidden_size",
        "n_embd",
        "d_model",
        "embedding_dim",
        "word_embed_proj_dim",
        "attention_hidden_size",
        "lru_width",
        "emb_dim",
        "input_embedding_size",
        "embedding_size",
        "backbone_hidden_size",
        "mlp_hidden_size",
        "hidden_size_per_layer_input",
    ),
    "feed_forward": (
        "intermediate_size",
        "moe_intermediate_size",
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
        "expert_ffn_hidden_size",
        "intermediate_size_mlp",
        "ffn_hidden_size",
        "ffn_dim",
        "dim_ff",
        "dff",
        "n_inner",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "mamba_d_ssm",
        "moe_ffn_hidden_size",
    ),
    "heads": (
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "attention_heads",
        "decoder_attention_heads",
        "encoder_attention_heads",
        "num_decoder_attention_heads",
        "num_encoder_attention_heads",
        "swa_num_attention_heads",
        "mamba_n_heads",
        "linear_num_heads",
        "linear_num_key_heads",
        "linear_num_value_heads",
        "num_attention_heads_per_layer",
    ),
    "kv_heads": (
        "num_key_value_heads",
        "num_kv_heads",
        "kv_n_heads",
        "num_query_groups",
        "swa_num_key_value_heads",
        "num_global_key_value_heads",
    ),
    "head_dim": (
        "head_dim",
        "dim_head",
        "kv_channels",
        "attention_head_dim",
        "v_head_dim",
        "qk_nope_head_dim",
        "swa_head_dim",
        "swa_v_head_dim",
        "global_head_dim",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "index_head_dim",
        "linear_head_dim",
        "d_kv",
    ),
    "rotary_dim": ("qk_rope_head_dim", "rotary_dim"),
    "rank": ("kv_lora_rank", "q_lora_rank", "o_lora_rank", "laurel_rank", "adapter_rank"),
    "state": ("state_size", "mamba_d_state", "ssm_state_size", "time_step_rank", "mamba_dt_rank"),
    "chunk": ("chunk_size", "mamba_chunk_size"),
    "window": (
        "sliding_window",
        "sliding_window_size",
        "attention_window_size",
        "window_size",
        "attention_chunk_size",
        "index_topk",
        "keep_window_size",
    ),
    "vocabulary": ("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "experts_used": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "moe_topk",
        "moe_k",
        "top_k_experts",
    ),
    "one": (
        "n_group",
        "topk_group",
        "num_expert_group",
        "n_shared_experts",
        "num_shared_experts",
        "num_sparse_encoder_layers",
        "num_sparse_decoder_layers",
        "first_k_dense_replace",
    ),
    "capacity": ("expert_capacity",),  # so small that experts refuse tokens
}
# Patterns of names in other parts of a vision-language model, and the kind of size or the largest
# value. The first match counts; 0 keeps the value, on which the number of image tokens depends.
PATTERNS: tuple[tuple[str, str | int], ...] = (
    (r".*(vocab|token_id|token_index|num_position|max_position|image_size|patch_size).*", 0),
    (r".*(sliding_window|attention_chunk_size)", "window"),
    (r"index_topk", "window"),
    (r"(linear_num_key_heads|linear_num_value_heads)", "heads"),
    (r"first_k_dense_replace", "one"),
    (r"qk_head_dim", 96),  # of two parts
    (r".*(head_dim|d_kv|dim_head|conv_dim|lora_rank).*", "head_dim"),
    (r".*(num_key_value_heads|num_attention_groups|n_kv_heads)", "kv_heads"),
    (r"(n_group|topk_group)", "one"),
    (r".*(heads|n_head|num_groups|n_groups?)", "heads"),
    (r".*(intermediate_size.*|ffn_dim|d_ff|mlp_dim|n_inner|expert_dim|alignment_.*)", 64),
    (r".*(num_experts|routed_experts|local_experts)", "experts"),
    (r".*(experts_per_tok|topk|top_k|moe_k)", "experts_used"),
    (
        r".*(hidden_size.*|d_model|n_embd|embed_dim|hidden_dim|output_dim|input_dim|width"
        r"|embed_proj_dim|projection_dim|adapter_in_dim|adapter_out_dim|projection_hidden_dim"
        r"|latents?)",
        "width",
    ),
    (r"(base_channels|latent_channels|output_channels)", 32),
)
# Model type -> fields of its published models, where the defaults lack a kind of layer.
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_HEADS_OF_128 = {"rope_parameters": DEFAULT_ROPE, "head_dim": 128}
DEFAULTS: dict[str, dict[str, Any]] = {
    "bamba": {"num_hidden_layers": 3, "attn_layer_indices": [1]},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": DEFAULT_ROPE, "sliding_attention": DEFAULT_ROPE}
    },
    "dbrx": {"attn_config": {"rope_theta": 500000.0, "kv_n_heads": 8, "clip_qkv": 8}},
    "deepseek_v2": {"num_experts_per_tok": 6, "first_k_dense_replace": 1},
    "dots1": {
        "n_routed_experts": 128,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 1,
    },
    "granitemoehybrid": {
        "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "hunyuan_v1_dense": _HEADS_OF_128,
    "hunyuan_v1_moe": _HEADS_OF_128,
    "lfm2": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    "ministral": _HEADS_OF_128,
    "nemotron": {"num_key_value_heads": 8},
}
# Model type -> fields that no rule finds.
_HYBRID = {
    "num_hidden_layers": 4,
    "layers_block_type": ["linear_attention", "hybrid"] * 2,
    "attention_head_dim": 32,
    "attention_hidden_size": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 16},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 4, "attn_layer_offset": 2},
    "lfm2_moe": {"num_dense_layers": 1},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "zamba": _HYBRID,
    "zamba2": _HYBRID
    | {"n_mamba_heads": 2, "mamba_headdim": 32, "hybrid_layer_ids": [1, 3], "kv_channels": 16},
}
