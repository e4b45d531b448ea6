"""Tiny configurations of every family of language models."""

from __future__ import annotations

from typing import Any

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
# Families that need one sequence per text.
SEPARATE: dict[str, dict[str, Any]] = {
    "lfm2": {"model_type": "lfm2", **_GROUPED, "layer_types": ["conv", "full_attention"]},
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


def decoder_config(family: str) -> dict[str, Any]:
    """The ``decoder:`` section of a family with random weights."""
    causal = CAUSAL | SEPARATE
    if family in causal:
        return {"name": "causal", "vocab_size": 800, "config": causal[family]}
    return {"name": "seq2seq", "vocab_size": 800, "config": SEQ2SEQ[family]}
